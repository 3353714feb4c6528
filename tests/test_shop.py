"""The generated shop: whole and repeatable as a folder, sound as a database, and carrying the signal it promises."""

import hashlib
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from relbench.manifest import DatasetManifest, TaskManifest, validate_dataset_manifest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from tasks import generated, shop
from tasks.shop import draw_shop, planted_score, write_shop
from tasks.shop_catalogue import EMPLOYEE_LEVELS, START_S
from tasks.shop_events import draw_events
from tasks.shop_signal import PERIOD_DAYS, Evidence, median_spend, units_per_visit, visit_probability
from tasks.shop_tasks import NUM_PERIODS
from tasks.task import SPLITS

TASK_NAMES = ("customer-churn", "customer-spend", "customer-bracket", "customer-regions", "customer-stores")
SMALL = 0.1


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the shop at its full size."""
    return write_shop(tmp_path_factory.mktemp("full") / "shop")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tenth of the shop."""
    return write_shop(tmp_path_factory.mktemp("small") / "shop", seed=3, scale=SMALL)


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read every table of the database."""
    manifest = DatasetManifest.load(folder / "manifest.yaml")
    return {name: pd.read_parquet(folder / "db" / f"{name}.parquet") for name in manifest.tables}


def read_labels(folder: Path, task: str) -> dict[str, pd.DataFrame]:
    """Read the three label files of a task."""
    return {split: pd.read_parquet(folder / "tasks" / task / f"{split}.parquet") for split in SPLITS}


def content_hash(folder: Path) -> str:
    """Hash names and bytes of all files below the folder."""
    digest = hashlib.blake2b()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


# The folder


def test_same_arguments_same_bytes(small: Path, tmp_path: Path) -> None:
    """Another folder with the same seed and scale has the same bytes; another seed has not."""
    assert content_hash(write_shop(tmp_path / "again", seed=3, scale=SMALL)) == content_hash(small)
    assert content_hash(write_shop(tmp_path / "other", seed=4, scale=SMALL)) != content_hash(small)


def test_second_call_leaves_the_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that holds the same shop is returned without drawing anything."""
    folder = write_shop(tmp_path / "shop", scale=SMALL)

    def forbidden(*_: object) -> None:
        raise AssertionError("the second call drew the shop again")

    monkeypatch.setattr(shop, "draw_shop", forbidden)
    assert write_shop(folder, scale=SMALL) == folder


@pytest.mark.parametrize("arguments", [{"seed": 1, "scale": SMALL}, {"seed": 0, "scale": 0.2}])
def test_refuses_a_folder_with_another_shop(tmp_path: Path, arguments: dict[str, float]) -> None:
    """Other parameters in the same place are an error, and what stood there stays."""
    folder = write_shop(tmp_path / "shop", scale=SMALL)
    before = content_hash(folder)
    with pytest.raises(ValueError, match="choose another folder"):
        write_shop(folder, **arguments)
    assert content_hash(folder) == before


def test_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    """A folder that no shop was written to is never filled or replaced."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="no generated shop"):
        write_shop(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """An interruption after the tables are written leaves neither the folder nor its unfinished sibling."""

    def interrupted(*_: object) -> None:
        unfinished = list(tmp_path.glob(".shop.*/db/items.parquet"))
        assert len(unfinished) == 1, "the interruption must come when files already exist"
        raise error

    monkeypatch.setattr(generated, "label_rows", interrupted)
    with pytest.raises(error):
        write_shop(tmp_path / "shop", scale=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_concurrent_writer_of_the_same_shop_is_welcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process finishes first, its folder is taken and the own one thrown away."""
    label_rows = generated.label_rows

    def outrun(task: TaskManifest, tables: dict[str, pd.DataFrame], split: str) -> pd.DataFrame:
        monkeypatch.setattr(generated, "label_rows", label_rows)
        write_shop(tmp_path / "shop", scale=SMALL)
        return label_rows(task, tables, split)

    monkeypatch.setattr(generated, "label_rows", outrun)
    write_shop(tmp_path / "shop", scale=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


@pytest.mark.parametrize(
    "arguments", [{"seed": -1}, {"scale": 0.0}, {"scale": -1.0}, {"scale": float("nan")}, {"scale": float("inf")}]
)
def test_refuses_impossible_arguments(tmp_path: Path, arguments: dict[str, float]) -> None:
    """A negative seed and a scale without enough customers are named, and no folder appears."""
    with pytest.raises(ValueError, match="allowed is"):
        write_shop(tmp_path / "shop", **arguments)
    assert list(tmp_path.iterdir()) == []


# The database


def test_manifest_agrees_with_the_files(small: Path) -> None:
    """RelBench's own check passes, and there are at least nine tables with the two awkward names."""
    manifest = DatasetManifest.load(small / "manifest.yaml")
    validate_dataset_manifest(manifest, small / "db")
    assert len(manifest.tables) >= 9
    assert {"items", "orders.2024"} <= set(manifest.tables)
    for name in (*TASK_NAMES, "review-stars"):
        TaskManifest.load(small / "tasks" / name / "manifest.yaml").validate()


def test_keys_are_contiguous_and_in_range(small: Path) -> None:
    """Primary keys are 0..N-1 in row order; foreign keys are integers, null or a row of their table."""
    manifest, tables = DatasetManifest.load(small / "manifest.yaml"), read_tables(small)
    for name, spec in manifest.tables.items():
        if spec.pkey is not None:
            assert tables[name][spec.pkey].tolist() == list(range(len(tables[name]))), name
        for column, target in spec.fkeys.items():
            keys = tables[name][column]
            assert str(keys.dtype) == "Int64", (name, column)
            assert keys.dropna().between(0, len(tables[target]) - 1).all(), (name, column)


def test_cutting_at_any_time_keeps_keys_contiguous(small: Path) -> None:
    """Rows stand in order of their time, nulls last, so what a cut leaves is a prefix."""
    manifest, tables = DatasetManifest.load(small / "manifest.yaml"), read_tables(small)
    timed = {name: spec.time_col for name, spec in manifest.tables.items() if spec.time_col}
    assert len(timed) >= 4
    assert len(timed) < len(manifest.tables)
    for name, column in timed.items():
        times = tables[name][column]
        assert times.dropna().is_monotonic_increasing, name
        assert times.isna().is_monotonic_increasing, name


def test_no_edge_points_to_a_later_row(small: Path) -> None:
    """A row never refers to one that did not exist yet: no order by a later customer or clerk, no later manager."""
    manifest, tables = DatasetManifest.load(small / "manifest.yaml"), read_tables(small)
    for name, spec in manifest.tables.items():
        for column, target in spec.fkeys.items():
            target_time = manifest.tables[target].time_col
            if spec.time_col and target_time and name != "reviews":
                rows = tables[name].dropna(subset=[column])
                referred = tables[target][target_time].to_numpy()[rows[column].to_numpy(np.int64)]
                assert (referred <= rows[spec.time_col].to_numpy()).all(), (name, column)


def test_the_database_has_what_readers_trip_over(small: Path) -> None:
    """Null keys, times and numbers, two keys to one table, mixed time units, booleans, texts and a second time."""
    manifest, tables = DatasetManifest.load(small / "manifest.yaml"), read_tables(small)
    orders = tables["orders.2024"]
    for column in ("employee_id", "ship_store_id", "pickup_store_id"):
        assert 0 < orders[column].isna().mean() < 1, column
    assert list(manifest.tables["orders.2024"].fkeys.values()).count("stores") == 2
    assert 0 < tables["reviews"]["written_at"].isna().mean() < 0.1
    assert 0 < tables["customers"]["income"].isna().mean() < 1
    assert manifest.tables["customers"].time_col != "birth_date"
    assert manifest.tables["product_suppliers"].pkey is None
    units = {
        str(field.type)
        for name in tables
        for field in pq.read_schema(small / "db" / f"{name}.parquet")
        if "timestamp" in str(field.type)
    }
    assert {"timestamp[us]", "timestamp[ns]"} <= units
    assert orders["gift"].dtype == bool
    assert tables["reviews"]["text"].str.contains(",").all()


def test_managers_form_trees_of_limited_depth(small: Path) -> None:
    """Following managers upwards ends at a null within the promised number of levels, and some chain has all."""
    manager = read_tables(small)["employees"]["manager_id"]
    levels = np.zeros(len(manager), int)
    above = pd.Series(np.arange(len(manager)), dtype="Int64")
    while above.notna().any():
        levels += above.notna().to_numpy()
        assert levels.max() <= EMPLOYEE_LEVELS
        above = above.map(manager)
    assert manager.isna().any()
    assert levels.max() == EMPLOYEE_LEVELS


def test_size_is_that_of_a_small_demo(full: Path, small: Path) -> None:
    """The full shop is big enough to learn from, and customers follow the scale."""
    tables, labels = read_tables(full), read_labels(full, "customer-churn")
    assert len(tables["customers"]) == 1500
    assert 20_000 <= len(tables["orders.2024"]) + len(tables["items"]) <= 40_000
    assert 9_000 <= len(labels["train"]) <= 15_000
    assert all(1_000 <= len(labels[split]) <= 2_000 for split in ("val", "test"))
    assert len(read_tables(small)["customers"]) == 150


# The labels


def regenerate(folder: Path, name: str, tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Run the SQL of a written manifest over these tables, from the seed times of the label files."""
    task = TaskManifest.load(folder / "tasks" / name / "manifest.yaml")
    labels = {}
    for split, rows in read_labels(folder, name).items():
        with duckdb.connect() as connection:
            connection.register("timestamps", pd.DataFrame({"timestamp": rows[task.time_col].unique()}))
            for table, frame in tables.items():
                connection.register(table, frame)
            connection.execute("SET enable_external_access=false")
            connection.execute("SET lock_configuration=true")
            found = connection.sql(task.sql.replace("{timedelta}", str(pd.Timedelta(task.timedelta)))).df()
        labels[split] = found.sort_values([task.time_col, "customer_id"], ignore_index=True)
    return labels


@pytest.mark.parametrize("name", TASK_NAMES)
def test_sql_regenerates_the_labels(small: Path, name: str) -> None:
    """The manifest's SQL, in a locked connection over the written files, returns the label files exactly."""
    for split, found in regenerate(small, name, read_tables(small)).items():
        pd.testing.assert_frame_equal(found, read_labels(small, name)[split])


@pytest.mark.parametrize("name", TASK_NAMES)
def test_labels_come_from_orders_of_the_window(small: Path, name: str) -> None:
    """The twin: without the orders after the test time the earlier labels stay and the last test labels do not."""
    tables = read_tables(small)
    test_time = pd.Timestamp(DatasetManifest.load(small / "manifest.yaml").test_timestamp)
    orders = tables["orders.2024"]
    found = regenerate(small, name, tables | {"orders.2024": orders[orders["ordered_at"] <= test_time]})
    expected = read_labels(small, name)
    for split in ("train", "val"):
        pd.testing.assert_frame_equal(found[split], expected[split])
    assert not found["test"].equals(expected["test"])


@pytest.mark.parametrize("name", TASK_NAMES)
def test_no_label_window_reaches_into_the_next_split(small: Path, name: str) -> None:
    """Seed time plus window ends at or before the next split's first seed, and inside the recorded history."""
    manifest = DatasetManifest.load(small / "manifest.yaml")
    val_time, test_time = pd.Timestamp(manifest.val_timestamp), pd.Timestamp(manifest.test_timestamp)
    window = pd.Timedelta(TaskManifest.load(small / "tasks" / name / "manifest.yaml").timedelta)
    seeds = {split: rows["seed_time"] for split, rows in read_labels(small, name).items()}
    assert seeds["train"].max() + window <= val_time == seeds["val"].min()
    assert seeds["val"].max() + window <= test_time == seeds["test"].min()
    assert seeds["test"].max() + window <= read_tables(small)["orders.2024"]["ordered_at"].max()
    assert seeds["train"].nunique() >= 12


@pytest.mark.parametrize("scale", [100 / 1500, 0.2])
def test_every_split_has_both_classes(tmp_path: Path, scale: float) -> None:
    """Down to the smallest scale churn and no churn occur in each split."""
    for split, rows in read_labels(write_shop(tmp_path / "shop", scale=scale), "customer-churn").items():
        assert set(rows["churn"]) == {0, 1}, split


# The planted signal


def churn_auroc(folder: Path) -> dict[str, float]:
    """Score the planted truth of a folder on its churn labels."""
    labels, scores = read_labels(folder, "customer-churn"), planted_score(folder, "customer-churn")
    return {split: roc_auc_score(labels[split]["churn"], scores[split]) for split in SPLITS}


def single_table_auroc(folder: Path) -> float:
    """Train gradient boosting on every column of the customers table and score it on the test labels."""
    return boosted_auroc(folder, customer_columns(folder))


def customer_columns(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the entity's own columns, ages instead of dates, a row a label."""
    customers = read_tables(folder)["customers"]
    columns = {}
    for split, labels in read_labels(folder, "customer-churn").items():
        rows = customers.iloc[labels["customer_id"]].reset_index(drop=True)
        for column in ("segment", "region"):
            rows[column] = rows[column].map({value: code for code, value in enumerate(customers[column].unique())})
        for column in ("birth_date", "signed_up_at"):
            rows[column] = (labels["seed_time"] - rows[column]) / pd.Timedelta(days=1)
        columns[split] = rows.drop(columns="customer_id")
    return columns


def two_hop_columns(folder: Path, *, with_time: bool) -> dict[str, pd.DataFrame]:
    """Add means over the customer's orders of what their items and stores tell; with time, of recent and old ones."""
    tables, columns = read_tables(folder), customer_columns(folder)
    orders, items = tables["orders.2024"], tables["items"]
    for name in ("mint", "good", "worn", "damaged"):
        orders[name] = (items["condition"] == name).groupby(items["order_id"]).mean()
    orders["rating"] = orders["ship_store_id"].map(tables["stores"]["service_rating"]).astype(float)
    told = ["mint", "good", "worn", "damaged", "rating"]
    for split, labels in read_labels(folder, "customer-churn").items():
        pairs = labels.reset_index().merge(orders[["customer_id", "ordered_at", *told]], on="customer_id")
        pairs = pairs[pairs["ordered_at"] <= pairs["seed_time"]]
        recent = pairs["ordered_at"] > pairs["seed_time"] - pd.Timedelta(days=60)
        parts = {"recent": pairs[recent], "old": pairs[~recent]} if with_time else {"all": pairs}
        for part, chosen in parts.items():
            columns[split] = columns[split].join(chosen.groupby("index")[told].mean().add_suffix(f"_{part}"))
    return columns


def boosted_auroc(folder: Path, columns: dict[str, pd.DataFrame]) -> float:
    """Fit on the train rows, score on the test rows."""
    labels = read_labels(folder, "customer-churn")
    model = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.1, random_state=0)
    model.fit(columns["train"], labels["train"]["churn"])
    return roc_auc_score(labels["test"]["churn"], model.predict_proba(columns["test"])[:, 1])


def test_planted_score_is_what_events_were_drawn_from(tmp_path: Path) -> None:
    """The score recomputed from the written files equals the simulator's own probability of each visit."""
    folder = write_shop(tmp_path / "shop", seed=5, scale=SMALL)
    _, events = draw_shop(150, 5)
    scores = planted_score(folder, "customer-churn")
    for split, labels in read_labels(folder, "customer-churn").items():
        elapsed = labels["seed_time"] - pd.Timestamp(START_S, unit="s")
        period = (elapsed // pd.Timedelta(days=PERIOD_DAYS)).to_numpy()
        drawn = events.probability[labels["customer_id"], period]
        np.testing.assert_allclose(1 - scores[split], drawn, rtol=0, atol=1e-12)


def test_planted_probabilities_are_calibrated(full: Path) -> None:
    """Within each tenth of the probability the share of churn is the probability, to three standard errors."""
    labels, scores = read_labels(full, "customer-churn"), planted_score(full, "customer-churn")
    truth = np.concatenate([labels[split]["churn"] for split in SPLITS])
    score = np.concatenate([scores[split] for split in SPLITS])
    for low in np.arange(0, 1, 0.1):
        chosen = (score >= low) & (score < low + 0.1)
        error = np.sqrt(np.sum(score[chosen] * (1 - score[chosen]))) / chosen.sum()
        assert abs(truth[chosen].mean() - score[chosen].mean()) < 3 * error + 1e-3


def test_churn_needs_two_hops_and_time(full: Path) -> None:
    """The customers table knows little, two hops without time some, two hops with time nearly all there is to know."""
    ceiling = churn_auroc(full)
    assert all(0.85 <= auroc <= 0.95 for auroc in ceiling.values()), ceiling
    single = single_table_auroc(full)
    timeless = boosted_auroc(full, two_hop_columns(full, with_time=False))
    timed = boosted_auroc(full, two_hop_columns(full, with_time=True))
    assert single <= 0.62
    assert timeless <= ceiling["test"] - 0.12
    assert timed >= ceiling["test"] - 0.04
    assert timed >= single + 0.2


@pytest.mark.parametrize(
    ("table", "column"), [("items", "condition"), ("orders.2024", "ordered_at")], ids=["second hop", "time"]
)
def test_planted_score_falls_without_what_it_needs(full: Path, tmp_path: Path, table: str, column: str) -> None:
    """The twin: with the items' conditions or the orders' times shuffled the formula no longer predicts churn."""
    folder = tmp_path / "shop"
    shutil.copytree(full, folder)
    path = folder / "db" / f"{table}.parquet"
    rows = pd.read_parquet(path)
    rows[column] = np.random.Generator(np.random.PCG64(0)).permutation(rows[column].to_numpy())
    rows.to_parquet(path, index=False)
    assert churn_auroc(folder)["test"] < 0.7


def test_spend_has_a_clear_ceiling(full: Path) -> None:
    """The planted median errs far less than the best constant, and shifting it either way makes it worse."""
    labels, scores = read_labels(full, "customer-spend"), planted_score(full, "customer-spend")
    deviation = labels["train"]["spend"].std()
    for split in ("val", "test"):
        spend = labels[split]["spend"]
        error = (spend - scores[split]).abs().mean() / deviation
        assert error < 0.5
        assert error < (spend - labels["train"]["spend"].median()).abs().mean() / deviation - 0.15
        for factor in (0.7, 1.4):
            assert (spend - factor * scores[split]).abs().mean() / deviation > error


def test_median_spend_is_the_median_of_simulated_spending() -> None:
    """The closed formula agrees with the median of a large sample of shops' spending at the same state."""
    probability, level = np.array([0.3, 0.6, 0.95]), np.array([30.0, 30.0, 12.0])
    rng = np.random.Generator(np.random.PCG64(1))
    units = units_per_visit()
    assert units.sum() == pytest.approx(1.0)
    drawn = rng.choice(len(units), size=(200_000, 1), p=units) * np.exp(
        0.35 * rng.standard_normal((200_000, 3)) - 0.35**2 / 2
    )
    spending = np.where(rng.random((200_000, 3)) < probability, drawn * level, 0.0)
    np.testing.assert_allclose(median_spend(probability, level), np.median(spending, axis=0), rtol=0.03)


def test_old_orders_mislead() -> None:
    """Good recent orders bring a customer back, good old ones make the same recent orders look worse."""

    def probability(recent: float, older: float) -> float:
        state = Evidence(
            segment=np.array(["regular"]),
            num_recent=np.ones(1),
            recent_experience=np.array([recent]),
            older_experience=np.array([older]),
            recent_price=np.ones(1),
        )
        return float(visit_probability(state)[0])

    assert probability(0.7, 0.0) > 0.8 > 0.2 > probability(-0.7, 0.0)
    assert probability(0.3, -0.7) > probability(0.3, 0.0) > probability(0.3, 0.7)


def test_the_past_does_not_depend_on_the_future() -> None:
    """Simulating fewer periods gives the same orders, up to where it stops."""
    catalogue, _ = draw_shop(150, 0)
    short, long = (
        draw_events(catalogue, periods, np.random.Generator(np.random.PCG64(9))) for periods in (12, NUM_PERIODS)
    )
    columns = ["customer_id", "ship_store_id", "ordered_at"]
    pd.testing.assert_frame_equal(short.orders[columns], long.orders[columns].head(len(short.orders)))
    np.testing.assert_array_equal(short.probability, long.probability[:, :12])


def test_planted_brackets_and_regions_are_calibrated(full: Path) -> None:
    """Brackets and regions come as often as the formulas say, in all and where a formula says often or seldom."""
    for name, column in (("customer-bracket", "bracket"), ("customer-regions", "regions")):
        labels, scores = read_labels(full, name)["train"][column].to_numpy(), planted_score(full, name)["train"]
        truth = np.eye(4)[labels] if column == "bracket" else np.stack(list(labels))
        for label in range(truth.shape[1]):
            probability = scores[:, label]
            for rows in (probability < 2, probability > np.median(probability), probability <= np.median(probability)):
                error = np.sqrt(np.mean(probability[rows] * (1 - probability[rows])) / rows.sum())
                assert abs(truth[rows, label].mean() - probability[rows].mean()) < 4 * error, (name, label)
    assert np.allclose(planted_score(full, "customer-bracket")["test"].sum(axis=1), 1)


def test_planted_stars_are_the_median_of_what_was_drawn(full: Path) -> None:
    """Reviews stray from the planted stars by chance alone: as often up as down, and by little."""
    stars, planted = read_labels(full, "review-stars")["train"]["stars"], planted_score(full, "review-stars")["train"]
    off = stars.to_numpy() - planted
    assert max((off < 0).mean(), (off > 0).mean()) < 0.5
    assert np.abs(off).mean() < 0.6 * np.abs(stars - stars.median()).mean()


def test_unknown_task_has_no_planted_score(small: Path) -> None:
    """A task without a planted signal is an error that lists those with one."""
    with pytest.raises(ValueError, match="customer-churn"):
        planted_score(small, "customer-mood")
