"""What a model learned is told truly: coverage by counting, quality on audiences whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from tests.engines.populations import names, noise, small, tribes
from whiteroom.engines.lookalike import Lookalike, ModelFileError
from whiteroom.engines.lookalike import report as reports
from whiteroom.engines.lookalike.report import TOPS, Probe, Report, read_report
from whiteroom.engines.lookalike.report_picture import svg


@pytest.fixture(scope="module")
def told() -> Lookalike:
    return small(probes=12).fit(tribes()[0])


def test_coverage_is_what_counting_gives() -> None:
    table = pa.table(
        {
            "user_id": ["a", "a", "a", "b", "b", "c", "d", "d", "d"],
            "item_id": ["x", "x", "y", "x", "z", "x", "q", "q", "w"],
        }
    )
    report = small().fit(table).report_
    assert (report.n_users, report.n_active_users, report.n_items, report.n_interactions) == (4, 3, 5, 9)
    # Only x has two users: four of the nine interactions are with it, and d has nothing of it.
    assert (report.n_learning_users, report.n_learned_items, report.n_blank_users) == (4, 1, 1)
    assert report.learned_share == pytest.approx(4 / 9)
    assert report.popular[0] == ("x", 3)
    assert dict(report.popular) == {"x": 3, "y": 1, "z": 1, "q": 1, "w": 1}
    assert report.probes == ()
    assert np.isnan(report.recall)


def test_coverage_is_of_all_users_though_only_a_sample_was_learned_from() -> None:
    table, _ = tribes()
    report = small(learning_interactions=3000).fit(table).report_
    frame = table.to_pandas()
    users = frame.drop_duplicates().groupby("item_id").size().sort_values(ascending=False)
    assert report.n_learning_users < 300
    assert report.n_users == frame.user_id.nunique()
    assert [count for _, count in report.popular] == users.head(len(report.popular)).tolist()
    assert all(users[int(item)] == count for item, count in report.popular)


def test_the_main_axes_carry_nine_tenths_of_the_variance(told: Lookalike) -> None:
    spectrum = np.sort(told.space_.spectrum)[::-1]
    n = told.report_.n_main_axes
    assert spectrum[:n].sum() >= 0.9 * spectrum.sum() > spectrum[: n - 1].sum()


def test_probes_find_the_users_of_items_that_tribes_share(told: Lookalike) -> None:
    report = told.report_
    assert len(report.probes) == 12
    assert [probe.users for probe in report.probes] == sorted(probe.users for probe in report.probes)
    assert all(50 <= probe.users <= 0.15 * 1200 and probe.seed + probe.hidden <= 200 for probe in report.probes)
    # An item has half of its users from its tribe, a sixth of everybody, and the others from all over.
    assert 0.45 < report.recall < 0.75
    assert (np.diff(report.curve) > 0).all()
    low, high = report.interval
    assert 0.2 < low < report.recall < high


def test_probes_of_noise_find_little_because_their_item_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    table = noise(users=2500, items=300, per_user=10)
    # What was learned has seen who has the item: with nothing else to learn that is worth a tenth (docs/lookalike.md).
    assert 0.2 < small(probes=20).fit(table).report_.recall < 0.36
    monkeypatch.setattr(reports, "_without", lambda rows, _item: rows)
    assert small(probes=20).fit(table).report_.recall > 0.9


def test_users_that_nothing_tells_apart_are_found_by_their_chance(told: Lookalike) -> None:
    space = told.space_
    outsiders = space.background[:500]
    # 100 of 1,000 users, half of them the seed. The other 50, all alike and alike nobody else, share the first 50
    # places of 950: 9.5 of them are in the first 1 %, 47.5 in the first 5 %.
    alike = np.tile(10 * space.vectors[7].astype(np.float32) * space.scale, (100, 1))
    assert reports._found(space, alike, outsiders, 50, 100, 1000) == pytest.approx((9.5 / 50, 47.5 / 50, 1, 1, 1))
    usual = np.tile(space.mean.astype(np.float32), (100, 1))
    assert reports._found(space, usual, outsiders, 50, 100, 1000) == pytest.approx(TOPS)


def test_few_probes_have_no_interval_and_no_fit_item_no_probe(told: Lookalike) -> None:
    one = replace(told.report_, probes=told.report_.probes[:1])
    assert np.isnan(one.interval).all()
    assert one.recall == told.report_.probes[0].recall
    assert small(probes=5).fit(noise(users=60, items=30)).report_.probes == ()


def test_the_interval_is_students_over_the_probes() -> None:
    found = [(0.0, 0.1, 0.2, recall, 1.0) for recall in (0.5, 0.6, 0.7, 0.8)]
    probes = tuple(Probe("i", 50, 25, 25, shares) for shares in found)
    report = replace(REPORT, probes=probes)
    # Mean .65, standard deviation .1291, t(3) = 3.182.
    assert report.interval == pytest.approx((0.65 - 0.2054, 0.65 + 0.2054), abs=1e-4)


def test_a_report_survives_its_model_on_disk_and_is_read_without_it(told: Lookalike, tmp_path: Path) -> None:
    told.save(tmp_path / "model")
    assert Lookalike.load(tmp_path / "model").report_ == told.report_
    assert Lookalike.load(tmp_path / "model").probes == 12
    assert Report.from_json(json.loads(json.dumps(told.report_.to_json()))) == told.report_
    (tmp_path / "model" / "vectors.npy").unlink()
    assert read_report(tmp_path / "model") == told.report_
    with pytest.raises(ModelFileError, match="missing"):
        read_report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "spoilt",
    [{"probes": [{"item": "x"}]}, {"popular": [["x"]]}, {"probes": None}, {"n_coats": 3}],
)
def test_a_document_that_is_no_report_is_refused(spoilt: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Report.from_json(REPORT.to_json() | spoilt)
    small().fit(noise(users=50)).save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["facts"]["report"] |= spoilt
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFileError):
        read_report(tmp_path)
    with pytest.raises(ModelFileError):
        Lookalike.load(tmp_path)


def test_neither_row_order_nor_threads_change_the_report_and_probes_change_no_model() -> None:
    table, tribe = tribes(users=600)
    shuffled = table.take(pa.array(np.random.default_rng(5).permutation(len(table))))
    one, other = small(probes=4).fit(table), small(probes=4, threads=3).fit(shuffled)
    assert one.report_ == other.report_
    seed = names(np.flatnonzero(tribe == 0)[:30])
    np.testing.assert_array_equal(one.score(seed), small().fit(table).score(seed))


def test_the_picture_is_well_formed_whatever_the_ids_are() -> None:
    ids = ("<script>", "a\0b", "&amp;", "ü" * 300, '"', "\u202e", "\ud7ff")
    probes = (Probe("p", 50, 25, 25, (0.1, 0.2, 0.3, 0.4, 0.5)), Probe("q", 60, 30, 30, (0.0, 0.1, 0.1, 0.3, 1.0)))
    for report in (replace(REPORT, popular=tuple((one, 3) for one in ids), probes=probes), REPORT):
        picture = ElementTree.fromstring(svg(report))
        words = [text.text or "" for text in picture.iter("{http://www.w3.org/2000/svg}text")]
        assert ("<script>" in words) == (report is not REPORT)
        assert ("mean of 2 probe audiences, 95 % interval" in words) == (report is not REPORT)
    assert "nan" not in svg(REPORT)


REPORT = Report(3, 2, 2, 5, 3, 1, 0.8, 1, (("x", 2),), 1, 1)
