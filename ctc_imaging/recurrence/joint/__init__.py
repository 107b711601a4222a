"""The joint model of repeated markers and an event: exact maximum likelihood, and prediction for one patient."""

from ctc_imaging.recurrence.joint.fit import fit_joint
from ctc_imaging.recurrence.joint.model import JointModel
from ctc_imaging.recurrence.joint.prediction import JointPredictor, JointPredictorFit, predict_patient
from ctc_imaging.recurrence.joint.spec import JointSpec, MarkerSpec

__all__ = [
    "JointModel",
    "JointPredictor",
    "JointPredictorFit",
    "JointSpec",
    "MarkerSpec",
    "fit_joint",
    "predict_patient",
]
