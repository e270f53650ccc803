from .audit_page import write_audit as write_audit
from .collection import collect_run as collect_run
from .run_page import write_report as write_report
from .terminal import Progress as Progress
from .terminal import models_table as models_table
