"""The settings of a measurement: one place for names, defaults, checks, recorded attributes and comparability."""

from dataclasses import fields
from inspect import signature

import pytest

from layerangles import measure_angles
from layerangles.errors import InputError
from layerangles.settings import DEFAULTS, MUST_AGREE, SETTINGS, MeasurementSettings, SettingsKeywords


def test_keywords_for_type_checkers_are_the_fields() -> None:
    declared = {name: hint.__forward_arg__ for name, hint in SettingsKeywords.__annotations__.items()}
    assert declared == {one.name: one.type for one in fields(MeasurementSettings)}


def test_every_setting_has_help_and_a_default_that_is_allowed() -> None:
    assert list(SETTINGS) == list(DEFAULTS) == [one.name for one in fields(MeasurementSettings)]
    for name, setting in SETTINGS.items():
        assert setting.help.endswith("."), name
        assert getattr(MeasurementSettings(**{name: DEFAULTS[name]}), name) == DEFAULTS[name]


def test_attributes_record_what_comparable_results_share() -> None:
    attributes = MeasurementSettings(fit="ridge", shard=(1, 4), special_tokens=False, max_length=64).attributes()
    assert attributes == {
        "space": "teacher",
        "convention": "layerangles",
        "preprocessing": "raw",
        "maps": "fitted: ridge",
        "shards": "1/4",
        "final_norm": "pre",
        "special_tokens": "left out",
        "max_length": 64,
        "precision": "float32",
        "confidence": 0.95,
    }
    assert set(attributes) - set(MUST_AGREE) == {"shards"}


def test_nulls_are_ordered_and_left_out_where_there_are_none() -> None:
    assert MeasurementSettings(nulls=["N5", "N1", "N5"]).nulls == ("N1", "N5")
    assert MeasurementSettings(space="gradient").nulls == MeasurementSettings(convention="paper").nulls == ()
    with pytest.raises(InputError, match=r"no null 'N9'; allowed are N0, N1"):
        MeasurementSettings(nulls=["N9"])  # type: ignore[list-item]


def test_help_shows_the_settings_with_their_defaults() -> None:
    shown = signature(measure_angles).parameters
    assert list(shown) == ["students", "data", "teacher", "trust_remote_code", "progress", *SETTINGS]
    assert {name: shown[name].default for name in SETTINGS} == DEFAULTS
