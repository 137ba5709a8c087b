"""Les pannes volontaires."""

import pytest

from backend.faults import BadFault, Faults


def test_without_variables_nothing_is_broken() -> None:
    assert Faults.read({}) == Faults()


def test_errors_leave_the_health_route_alone_unless_it_is_named() -> None:
    assert Faults().hits("/api/sessions")
    assert not Faults().hits("/api/health")
    assert Faults(error_path="/api/health").hits("/api/health")
    assert not Faults(error_path="/api/memory").hits("/api/sessions")


def test_a_value_that_cannot_be_is_named() -> None:
    with pytest.raises(BadFault, match="FAULT_ERROR_RATE must be between 0 and 1: '2'"):
        Faults.read({"FAULT_ERROR_RATE": "2"})
