"""The router's state machine under frames in any order, for ten minutes; test_session.py has the short form."""

from __future__ import annotations

import pytest

from tests.unit.test_session import fuzz

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


def test_any_frames_in_any_order(long_form: bool):
    fuzz(seconds=600 if long_form else 2)
