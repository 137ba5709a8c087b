"""What was asked against what came: answers, metrics, log lines, output of commands, who serves; values in, findings out."""

from relais.contract.answers import Answer, at_path, differences, http_finding
from relais.contract.checklist import checklist
from relais.contract.commands import Ran, check_finding, command_finding, count_passed, failed_tests, waived
from relais.contract.logs import log_findings
from relais.contract.metrics import Metrics, Sample, group_lines, increment_finding, metric_findings, parse_metrics, sample
from relais.contract.proof import serves_findings

__all__ = [
    "Answer",
    "Metrics",
    "Ran",
    "Sample",
    "at_path",
    "check_finding",
    "checklist",
    "command_finding",
    "count_passed",
    "differences",
    "failed_tests",
    "group_lines",
    "http_finding",
    "increment_finding",
    "log_findings",
    "metric_findings",
    "parse_metrics",
    "sample",
    "serves_findings",
    "waived",
]
