"""Metrics are declared once, follow Prometheus' practice, and count."""

import re

import pytest

from federation.telemetry import metrics


@pytest.mark.parametrize("metric", metrics.ALL.values(), ids=lambda metric: metric.name)
def test_a_name_follows_the_practice(metric: metrics.Metric) -> None:
    """Prefix, lower case, `_total` for counters only, a help sentence, and labels of few values."""
    assert re.fullmatch(r"hanse_[a-z][a-z0-9_]*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is metrics.Kind.COUNTER)
    assert metric.help[0].isupper()
    assert metric.help.endswith(".")
    assert bool(metric.buckets) == (metric.kind is metrics.Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(metric.buckets)
    assert not {"round", "address", "message_id", "serial"} & set(metric.labels)


@pytest.mark.parametrize("declared", [metrics.COORDINATOR, metrics.AGGREGATOR, metrics.EDGE_AGENT])
def test_each_process_can_show_all_of_its_metrics(declared: tuple[metrics.Metric, ...]) -> None:
    """A registry holds every declared metric, and its text names them with their help."""
    text = metrics.Metrics(declared).text().decode()
    for metric in declared:
        assert metric.help in text


def test_what_is_counted_is_shown() -> None:
    """A counter grows, a gauge shows its last value, a histogram counts observations."""
    shown = metrics.Metrics(metrics.AGGREGATOR)
    shown.increase(metrics.UPDATES_REFUSED, training="demo/a", reason="NotFinite")
    shown.increase(metrics.UPDATES_REFUSED, 2, training="demo/a", reason="NotFinite")
    shown.put(metrics.ROUND, 7, training="demo/a")
    shown.observe(metrics.ROUND_SECONDS, 0.2, training="demo/a")
    text = shown.text().decode()
    assert 'hanse_updates_refused_total{reason="NotFinite",training="demo/a"} 3.0' in text
    assert 'hanse_round{training="demo/a"} 7.0' in text
    assert 'hanse_round_seconds_count{training="demo/a"} 1.0' in text


def test_a_deleted_training_is_forgotten() -> None:
    """A series that was forgotten is shown no more; forgetting it again is no error."""
    shown = metrics.Metrics(metrics.AGGREGATOR)
    shown.put(metrics.ROUND, 7, training="demo/a")
    shown.forget(metrics.ROUND, training="demo/a")
    shown.forget(metrics.ROUND, training="demo/a")
    assert "demo/a" not in shown.text().decode()


def test_a_metric_is_used_as_what_it_is() -> None:
    """A gauge cannot be increased as a counter, and an undeclared metric is an error."""
    shown = metrics.Metrics(metrics.EDGE_AGENT)
    with pytest.raises(TypeError, match="hanse_agent_assignments is a gauge, not a counter"):
        shown.increase(metrics.ASSIGNMENTS, state="Running")
    with pytest.raises(KeyError):
        shown.put(metrics.ROUND, 1, training="demo/a")


def test_two_processes_in_one_test_do_not_meet() -> None:
    """Each `Metrics` has a registry of its own."""
    one, other = metrics.Metrics(metrics.EDGE_AGENT), metrics.Metrics(metrics.EDGE_AGENT)
    one.increase(metrics.RECONNECTS)
    assert "hanse_agent_reconnects_total 1.0" in one.text().decode()
    assert "hanse_agent_reconnects_total 0.0" in other.text().decode()
