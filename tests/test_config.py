"""Configs: composed by Hydra, checked once, frozen, and named by hashes that mean what they say."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from backends.families import BUILT_IN, OPTIONS, find_family
from backends.spec import ModelSpec
from harness import compose as compose_module
from harness import config as config_module
from harness.compose import SHELF, compose_trial, expand, parse_values, read_sweep, shelf_names
from harness.config import TrialConfig
from harness.plain_compose import PlainShelf
from harness.plan import gate_settings
from harness.stages import read_stages

OTHERS = ["backend=dgl", "seed=3", "dataset.path=elsewhere", "measure.threads=2", "measure.timeout_s=5"]


def config(*overrides: str) -> TrialConfig:
    """Compose one config."""
    return compose_trial(list(overrides)).config


def test_every_name_on_the_shelf_composes() -> None:
    """Each data set, task recipe, model, sampler, training and compile file fits the frozen config."""
    for group in ("backend", "model", "sampler", "train", "measure", "task"):
        for name in shelf_names(group):
            assert config(f"{group}={name}")
    for name in shelf_names("dataset"):
        assert config(f"dataset={name}", "dataset.path=x").dataset.path == "x"
    for name in shelf_names("compile"):
        assert config(f"compile={name}", "measure.device=cuda")
    for name in shelf_names("sweep"):
        summary, overrides = read_sweep(name)
        assert summary
        assert read_stages(name) or len(expand(overrides)) > 1


def test_round_trip_through_plain_values() -> None:
    """What goes to the child comes out as the same config."""
    first = config("model.channels=32", "sampler.fanout=[3,-1]", "seed=4")
    assert TrialConfig.from_dict(first.to_dict()) == first


def test_ids_know_what_they_should_and_nothing_else() -> None:
    """config_id forgets seed, path, threads and timeout; pair_id the backend too; trial_id knows seed and data."""
    base = config()
    for override in (
        "seed=3",
        "dataset.path=elsewhere",
        "measure.threads=2",
        "measure.timeout_s=5",
        "measure.split_steps=0",
    ):
        assert config(override).config_id == base.config_id
    dgl = config("backend=dgl")
    assert dgl.config_id != base.config_id
    assert dgl.pair_id == base.pair_id
    for override in ("model.channels=65", "train.lr=0.1", "measure.dtype=float64", "dataset.scale=2", "task=other"):
        assert config(override).pair_id != base.pair_id
    ids = {base.trial_id("a"), base.trial_id("b"), config("seed=3").trial_id("a"), dgl.trial_id("a")}
    assert len(ids) == 4
    assert config("dataset.path=elsewhere").trial_id("a") == base.trial_id("a")


def test_a_new_setting_at_what_it_always_was_keeps_the_ids() -> None:
    """A baseline of before the setting still knows its cells: the id is that of the same config without it."""
    data = config().to_dict()
    for path in (*config_module.ENVIRONMENT, *config_module._LATER):
        group = data if len(path) == 1 else data[path[0]]
        del group[path[-1]]
    assert config().config_id == config_module._digest(data)
    assert config("dataset.directions=to_parents").config_id != config().config_id


@pytest.mark.parametrize(
    ("name", "value"),
    [("label_table", True), ("directions", "to_parents"), ("null_indicators", False), ("self_depth", None)],
)
def test_what_changes_the_graph_is_part_of_a_trial(name: str, value: Any) -> None:
    """Each option reaches what builds the graph, and makes another trial and another gate."""
    plain, other = (
        expand(overrides)[0].config for overrides in ([], [f"dataset.{name}={'null' if value is None else value}"])
    )
    assert other.dataset.build_options() == {**plain.dataset.build_options(), name: value}
    assert other.config_id != plain.config_id
    assert gate_settings(other) != gate_settings(plain)


def test_public_form_hides_the_path() -> None:
    """A record says that a folder was given, not which."""
    assert config("dataset.path=secret").to_public_dict()["dataset"]["path"] == "FOLDER"
    assert config().to_public_dict()["dataset"]["path"] is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.chanels=3"], "model.chanels=3: there is no such key; did you mean 'model.channels'"),
        (["modle=sage"], "modle=sage: there is no such key; did you mean 'model'"),
        (["backend=pgy"], "backend=pgy: did you mean 'pyg'"),
        (["backend.name=pgy"], "backend='pgy': did you mean 'pyg'"),
        (["dataset=rel-f2"], "did you mean 'rel-f1'"),
        (["dataset=folder"], "dataset.path is not given"),
        (["foo"], "'foo' is no override"),
        (["seed=a"], "seed='a': allowed is a whole number"),
        (["seed=-1"], "seed=-1: allowed is a whole number, 0 or more"),
        (["seed=range(0,"], "no override"),
        (["+extra=1"], "unknown key extra"),
        (["train.lr=fast"], "train.lr='fast': allowed is a number"),
        (["train.lr=0"], "train.lr=0.0: allowed is a number above 0"),
        (["train.epochs=1.5"], "train.epochs=1.5: allowed is a whole number"),
        (["train.batch_size=0"], "train.batch_size=0: allowed is 1 or more"),
        (["sampler.fanout=[4]"], "sampler.fanout=[4] has 1 hops"),
        (["sampler.fanout=[0,4]"], "sampler.fanout=[0, 4]: allowed is"),
        (["sampler.fanout=8"], "sampler.fanout=8: allowed is a list"),
        (["sampler.fanout=[true,4]"], "sampler.fanout=[True, 4]: allowed is a list of whole numbers"),
        (["model.family=gcn"], "model.family='gcn': did you mean 'rgcn'"),
        (["dataset.directions=up"], "dataset.directions='up': allowed are both, to_parents, to_children"),
        (["measure.device=gpu"], "measure.device='gpu': did you mean 'cpu'"),
        (["dataset.scale=0"], "dataset.scale=0.0: allowed is"),
    ],
)
def test_wrong_overrides_are_one_clear_line(overrides: list[str], message: str) -> None:
    """Each names the key, the value and what is allowed."""
    with pytest.raises(ValueError) as caught:
        expand(overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sweeps_are_hydra_s_grammar() -> None:
    """Lists, ranges and quoting work; the last override varies fastest; a later one of the same key wins."""
    composed = expand(["backend=pyg,dgl", "seed=range(0,3)", "task=a,b", "seed=7,8"])
    assert [(item.config.backend.name, item.config.seed, item.config.task) for item in composed] == [
        (backend, seed, task) for backend in ("pyg", "dgl") for seed in (7, 8) for task in ("a", "b")
    ]
    assert composed[0].overrides == ("backend=pyg", "seed=7", "task.name=a")


def test_overrides_remake_their_config() -> None:
    """The single overrides of an expanded config compose to the same config."""
    for item in expand(["dataset=rel-f1", "dataset.path='with space/x'", "task=driver-dnf,driver-top3", "seed=1,2"]):
        assert compose_trial(item.overrides).config == item.config


def test_unknown_sweep_names_the_closest() -> None:
    """A mistyped sweep is one line."""
    with pytest.raises(ValueError, match="sweep 'dmeo': did you mean 'demo'"):
        read_sweep("dmeo")


def test_configs_hold_every_key_of_the_dataclasses() -> None:
    """A key that a user can set stands in the composed config, so that a typo can be told from it."""
    import yaml

    for group, name in (("sampler", "shared"), ("train", "default"), ("measure", "default"), ("compile", "model")):
        data: dict[str, Any] = yaml.safe_load((SHELF / group / f"{name}.yaml").read_text())
        kind = type(getattr(config(), group))
        assert set(data) == {field.name for field in dataclasses.fields(kind)}, group
    for family in BUILT_IN:
        unread = set(OPTIONS) - set(find_family(family).options)
        data = yaml.safe_load((SHELF / "model" / f"{family}.yaml").read_text())
        assert set(data) == {field.name for field in dataclasses.fields(ModelSpec)} - unread, family


def by_hydra(shelf: Path, *overrides: str) -> Any:
    """Compose with Hydra alone."""
    with initialize_config_dir(str(shelf), version_base="1.3"):
        return OmegaConf.to_container(compose("trial", overrides=list(overrides)), resolve=True)


VALUES = [
    ("seed=7", "train.lr=1e-3", "sampler.fanout=[3,-1]", "dataset.path='with space/$x'", "model.bases=null"),
    ("task=driver-dnf", "train.epochs=2", "sampler.blocks=true", 'measure.dtype="float64"', "task.name=0123"),
    ("task=driver-top3", "backend=dgl", "backend.storage=coo", "train.weight_decay=.5", "dataset.scale=-0.0"),
]


@pytest.mark.parametrize("choice", VALUES, ids=[choice[0] for choice in VALUES])
def test_plain_composition_is_hydra_s(choice: tuple[str, ...]) -> None:
    """Values of every kind, recipes that reach into other groups and values over recipes come out as Hydra's do."""
    family = "rgcn" if "model.bases=null" in choice else "hgt"
    overrides = (f"model={family}", "dataset=rel-f1" if "scale" not in str(choice) else "dataset=shop", *choice)
    plain = PlainShelf(SHELF).compose(overrides)
    assert plain is not None
    assert compose_module._text(plain) == compose_module._text(by_hydra(SHELF, *overrides))


def test_plain_composition_knows_every_file_of_the_shelf() -> None:
    """Each name of each group is merged as Hydra merges it, also all tasks over another sampler and training."""
    groups = [group for group in compose_module._groups() if group != "dataset"]
    names = {group: shelf_names(group) for group in groups} | {"dataset": ["folder", "rel-f1", "shop"]}
    shelf = PlainShelf(SHELF)
    for number in range(max(map(len, names.values()))):
        choice = [f"{group}={its[number % len(its)]}" for group, its in names.items()] + ["dataset.path=x"]
        assert shelf.compose(choice) == by_hydra(SHELF, *choice), choice


@pytest.mark.parametrize(
    ("file", "content", "choice"),
    [
        ("model/b.yaml", "defaults: [a]\nlayers: 3", ["model=b"]),
        ("model/b.yaml", "# @package other\nlayers: 3", ["model=b"]),
        ("model/b.yaml", "layers: ${seed}", ["model=b"]),
        ("model/b.yaml", "layers: ???", ["model=b"]),
        ("model/b.yaml", "# @package _global_\nseed: {x: 1}", ["model=b"]),
        ("trial.yaml", "defaults: [model: a, {optional task: none}, _self_]\nseed: 0", []),
        ("trial.yaml", "defaults: [model: a]\nseed: 0", []),
        ("model/b.yaml", "layers: 3", ["model.layers={x:1}"]),
        ("model/b.yaml", "layers: 3", ["model.other=1"]),
        ("model/b.yaml", "layers: 3", ["+model.layers=1"]),
        ("model/b.yaml", "layers: 3", ["~model.layers"]),
        ("model/b.yaml", "layers: 3", ["model=[a,b]"]),
        ("model/b.yaml", "layers: 3", ["model.layers=${seed}"]),
    ],
)
def test_plain_composition_leaves_the_rest_to_hydra(file: str, content: str, choice: list[str], tmp_path: Path) -> None:
    """What it might merge otherwise than Hydra is None; the shelf that these spoil composes."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.yaml").write_text("layers: 2\nchannels: 4\n")
    (tmp_path / "trial.yaml").write_text("defaults: [model: a, _self_]\nseed: 0\n")
    assert PlainShelf(tmp_path).compose(["model.layers=5"]) == by_hydra(tmp_path, "model.layers=5")
    (tmp_path / file).write_text(content)
    assert PlainShelf(tmp_path).compose(choice) is None


def count_compositions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Record what Hydra composes."""
    found: list[tuple[str, ...]] = []
    real = compose_module._compose_by_hydra
    monkeypatch.setattr(compose_module, "_compose_by_hydra", lambda choice: found.append(choice) or real(choice))
    return found


def test_hydra_composes_once_however_many_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of 240 configs over four groups asks Hydra for the first one only, and each is what Hydra makes alone."""
    found = count_compositions(monkeypatch)
    groups = ["model=sage,gat,hgt", "backend=pyg,dgl", "task=driver-dnf,driver-top3"]
    composed = expand([*groups, "train.lr=0.1,0.2", "seed=range(0,10)"])
    assert (len(composed), len(found)) == (240, 1)
    for item in (composed[0], composed[77], composed[239]):
        assert TrialConfig.from_dict(by_hydra(SHELF, *item.overrides)) == item.config


def test_hydra_wins_where_the_plain_composition_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain composition that is wrong is found out by the first config, and used for none."""
    real = PlainShelf.compose

    def wrong(shelf: PlainShelf, choice: Any) -> dict[str, Any] | None:
        tree = real(shelf, choice)
        assert tree is not None
        tree["model"]["channels"] += 1
        return tree

    right = expand(["backend=pyg,dgl", "train.epochs=1,2"])
    monkeypatch.setattr(PlainShelf, "compose", wrong)
    found = count_compositions(monkeypatch)
    assert expand(["backend=pyg,dgl", "train.epochs=1,2"]) == right
    assert len(found) == 4


def test_values_are_parsed_by_hydra_s_grammar() -> None:
    """Single values come out typed and unquoted; a sweep or an addition is none."""
    assert parse_values(["dataset.path='a b'", "measure.threads=2"]) == {"dataset.path": "a b", "measure.threads": 2}
    for text in ("measure.threads=1,2", "+seed=1", "seed"):
        with pytest.raises(ValueError, match="allowed is"):
            parse_values([text])
