"""Everything about a run that is free to check, before the first call that is paid for."""

from feldspar.ahead.checks import Check, Subject
from feldspar.ahead.listing import check_all, check_before_run

__all__ = ["Check", "Subject", "check_all", "check_before_run"]
