"""An instrument for other people's implicit models: is it an equilibrium, the only one, and is the gradient right?"""

from verification.audit.load import load_subject
from verification.audit.result import AuditReport, AuditVerdict, CheckResult
from verification.audit.run import audit

__all__ = ["AuditReport", "AuditVerdict", "CheckResult", "audit", "load_subject"]
