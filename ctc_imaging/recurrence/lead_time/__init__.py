"""How much earlier than imaging CTC positivity speaks, when neither the onset nor the relapse is seen happening."""

from ctc_imaging.recurrence.lead_time.estimate import LeadTime, Limited, estimate_lead_time
from ctc_imaging.recurrence.lead_time.observations import Observations, observe

__all__ = ["LeadTime", "Limited", "Observations", "estimate_lead_time", "observe"]
