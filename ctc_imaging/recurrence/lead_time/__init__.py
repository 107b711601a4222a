"""How much earlier than imaging CTC positivity speaks, when neither the onset nor the relapse is seen happening."""

from ctc_imaging.recurrence.lead_time.alarms import FalseAlarms, ObservedLead, false_alarms, observed_lead
from ctc_imaging.recurrence.lead_time.comparison import LeadTimes, MarkerLead, lead_times, marker_lead
from ctc_imaging.recurrence.lead_time.estimate import LeadTime, Limited, estimate_lead_time
from ctc_imaging.recurrence.lead_time.observations import Observations, observe
from ctc_imaging.recurrence.lead_time.prompted import Prompted, prompted_scans

__all__ = [
    "FalseAlarms",
    "LeadTime",
    "LeadTimes",
    "Limited",
    "MarkerLead",
    "Observations",
    "ObservedLead",
    "Prompted",
    "estimate_lead_time",
    "false_alarms",
    "lead_times",
    "marker_lead",
    "observe",
    "observed_lead",
    "prompted_scans",
]
