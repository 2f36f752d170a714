"""Flag beats file beats default, and every mistake is one sentence that says how to mend it."""

from pathlib import Path

import pytest

from distributed.health import preemption
from launch.job import arguments, config
from launch.job.config import ConfigError, TrainConfig
from launch.job.settings.idle import idle
from launch.train import main

ROOT = Path(__file__).parent.parent


def parse(*argv, preset=None):
    return arguments.parse_arguments(list(map(str, argv)), program="train.py", description="", preset=preset)


@pytest.fixture
def recipe(tmp_path):
    """Write a settings file and return its path."""

    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def test_defaults():
    assert parse() == TrainConfig()


def test_flag_beats_file_beats_preset_beats_default(recipe):
    path = recipe("epochs: 3\nseed: 5\nstrategy: horovod\n")
    found = parse("--seed", 7, "--config", path, preset={"strategy": "mirrored", "epochs": 9, "momentum": 0.5})
    assert (found.seed, found.epochs, found.strategy, found.momentum) == (7, 3, "horovod", 0.5)
    assert found.model == "alexnet_cifar"
    assert parse("--strategy=single", preset={"strategy": "mirrored"}).strategy == "single"


@pytest.mark.parametrize("place", ["~", "$HOME", "${HOME}"])
def test_home_and_variables_in_the_files_path_are_replaced(recipe, monkeypatch, place):
    path = recipe("epochs: 3\n")
    monkeypatch.setenv("HOME", str(path.parent))
    assert parse(f"--config={place}/{path.name}").epochs == 3


SPELLINGS = ("--batch-size 8", "--batch_size 8", "--batch-size=8", "--batch_size=8", "--batch-size 4 --batch-size 8")


@pytest.mark.parametrize("words", SPELLINGS)
def test_spellings(words):
    assert parse(*words.split()).batch_size == 8


ON = ("--deterministic", "--deterministic true", "--deterministic=true", "--no-deterministic --deterministic")
OFF = ("--no-deterministic", "--no_deterministic", "--deterministic false", "--deterministic=false")


@pytest.mark.parametrize(("words", "value"), [(words, True) for words in ON] + [(words, False) for words in OFF])
def test_switches(recipe, words, value):
    path = recipe(f"deterministic: {str(not value).lower()}")
    assert parse(*words.split(), "--epochs", 2).deterministic is value
    assert parse("--config", path, *words.split()).deterministic is value


@pytest.mark.parametrize(
    ("words", "field", "value"),
    (
        (["--learning-rate", "1e-3"], "learning_rate", 0.001),
        (["--profile-steps", "3,5"], "profile_steps", (3, 5)),
        (["--data-dir", "a b", "--dataset", "csv"], "data_dir", Path("a b")),
        (["--run-dir=x=y"], "run_dir", Path("x=y")),
        (["--augment", "none"], "augment", "none"),
        (["--lr-scaling", "none"], "lr_scaling", "none"),
        (["--dropout", "0"], "dropout", 0.0),
        (["--dropout", "none"], "dropout", None),
        (["--clip-norm", "none"], "clip_norm", None),
    ),
)
def test_values(words, field, value):
    assert getattr(parse(*words), field) == value


@pytest.mark.parametrize(
    "field",
    [name for name in TrainConfig.model_fields if config.choices(name) and name != "metrics"],
)
def test_every_choice_can_be_chosen_by_flag_and_by_file(recipe, field):
    needed = {"dataset": {"data_dir": "d"}, "head": {"model": "keras:VGG16"}}.get(field, {})
    for choice in config.choices(field):
        more = {} if choice in ("shapes", "cifar10") else needed
        flags = [word for name, value in ({field: choice} | more).items() for word in (f"--{name}", value)]
        lines = "".join(f"{name}: {value}\n" for name, value in ({field: choice} | more).items())
        assert getattr(parse(*flags), field) == getattr(parse("--config", recipe(lines)), field) == choice


def test_a_batch_flag_replaces_the_files_other_one(recipe):
    for ours, files in (("global_batch_size", "batch_size"), ("batch_size", "global_batch_size")):
        found = parse(f"--{ours}", 96, "--config", recipe(f"{files}: 32\n"))
        assert (getattr(found, ours), getattr(found, files)) == (96, None)


SETTINGS = (
    "",
    "--augment none --lr-scaling none --monitor val_loss",
    "--dataset csv --data-dir some/folder --run-dir runs/it's:#1 --profile-steps 2,4 --no-deterministic",
    "--strategy mirrored --cpu-devices 3 --global-batch-size 96 --learning-rate 1e-5 --dropout 0.1",
    "--precision float16 --clip-norm 1 --weight-decay 0.0005 --momentum 0 --verbose --resume 1e5",
    f"--optimizer adam --early-stopping-patience 3 --plateau-patience 2 --min-delta 1e-9 --seed {2**40}",
)


@pytest.mark.parametrize("flags", SETTINGS)
def test_the_saved_configuration_gives_the_equal_one(tmp_path, flags):
    saved = parse(*flags.split())
    config.save(saved, tmp_path / "config.yaml")
    assert parse("--config", tmp_path / "config.yaml") == saved
    assert (
        parse("--config", tmp_path / "config.yaml", preset={"strategy": "mirrored", "batch_size": 1, "seed": 9})
        == saved
    )


@pytest.mark.parametrize(
    ("words", "flags"),
    (
        ("", []),
        ("--min-delta 0.1 --threshold-mode rel", ["--min-delta 0.1", "--threshold-mode rel"]),
        ("--min-delta 0.1 --early-stopping-patience 1", []),
        ("--threshold-mode rel --plateau-patience 1", []),
        ("--lr-scaling none --base-batch-size 8", ["--base-batch-size 8"]),
        ("--lr-scaling sqrt --base-batch-size 8", []),
        ("--freeze base --features-dir f --augment flip_crop", ["--features-dir f"]),
        ("--freeze base --features-dir f --augment flip_crop --cache-views 2 --epochs 9", []),
        ("--freeze base --features-dir f", []),
        ("--features-dir f", ["--features-dir f"]),
        ("--profile-steps 10,12", []),
        ("--profile-steps 11,12", ["--profile-steps 11,12"]),
    ),
)
def test_settings_without_effect_are_named(words, flags):
    found = list(idle(parse(*words.split()), 10, freezes="--freeze" in words))
    assert [sentence.split(" has no effect")[0] for sentence in found] == flags


@pytest.mark.parametrize(
    ("words", "said"),
    (
        # field, what came, what was expected
        ("--model lenet", ("--model is 'lenet'", "'alexnet_cifar'", "'vgg19'")),
        ("--epochs 0", ("--epochs is '0'", "greater than 0")),
        ("--epochs 1.5", ("--epochs is '1.5'", "valid integer")),
        ("--learning-rate fast", ("--learning-rate is 'fast'", "valid number")),
        ("--learning-rate nan", ("--learning-rate is 'nan'", "finite number")),
        ("--validation-split 1", ("--validation-split is '1'", "less than 1")),
        ("--deterministic=maybe", ("--deterministic is 'maybe'", "valid boolean")),
        ("--profile-steps 7", ("--profile-steps", "'7'", "two step numbers A,B")),
        ("--profile-steps 1,2,3", ("--profile-steps", "two step numbers A,B")),
        # what cannot be a setting at all
        ("--epoch 3", ("--epoch is not a flag", "did you mean --epochs?", "--help")),
        ("--learning_rte=3", ("--learning_rte is not a flag", "did you mean --learning-rate?")),
        ("--zzz", ("--zzz is not a flag", "--help")),
        ("--no-epochs 3", ("--no-epochs is not a flag",)),
        ("epochs 3", ("'epochs' was given where a flag was expected", "--epochs 10")),
        ("--epochs", ("--epochs was given without a value", "--epochs VALUE")),
        ("--epochs --seed 3", ("--epochs was given without a value",)),
        ("--run-dir=", ("--run-dir was given an empty value", "--run-dir VALUE or leave it out")),
        # what does not go together
        ("--plateau-cooldown 3", ("--plateau-cooldown was given without --plateau-patience", "give both")),
        ("--plateau-factor 0.5", ("--plateau-factor was given without --plateau-patience", "give both")),
        ("--batch-size 4 --global-batch-size 8", ("--batch-size 4", "--global-batch-size 8", "give one")),
        ("--profile-steps 5,3", ("--profile-steps 5,3", "backwards")),
        ("--optimizer adam --momentum 0.9", ("--momentum 0.9", "--optimizer adam", "leave it out")),
        ("--strategy single --cpu-devices 2", ("--cpu-devices 2", "single", "--strategy mirrored")),
        ("--dataset csv", ("--dataset csv", "without --data-dir", "name the folder")),
        ("--data-dir x", ("--data-dir x", "--dataset shapes is generated")),
        *(
            (f"--{flag} --dataset {kind}{place}", (f"--{flag} belongs to image_folder", f" {kind}", "leave it out"))
            for flag in ("reindex", "skip-unreadable 3")
            for kind in ("shapes", "cifar10", "npz", "hdf5", "mine.py:data")
            for place in [" --data-dir x" if kind in ("npz", "hdf5") else ""]
        ),
        ("--config absent.yaml", ("--config absent.yaml cannot be read", "No such file", "existing YAML")),
    ),
)
def test_errors_on_the_command_line(capsys, monkeypatch, words, said):
    monkeypatch.setattr(preemption, "listen", lambda: None)  # a signal shall go on ending pytest as it does
    with pytest.raises(ConfigError) as error:
        parse(*words.split())
    assert [part for part in said if part not in str(error.value)] == [] and "\n" not in str(error.value)
    assert main(words.split()) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"error: {error.value}\n")


@pytest.mark.parametrize(
    "words",
    (
        "--epochs x --seed -3 --strategy double",
        "--batch-size 4 --global-batch-size 8 --baseline 3 --head average",
        "--config recipe.yaml --seed -3",
        "--config unknown.yaml",
    ),
)
def test_all_that_is_wrong_is_named_at_once(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("epochs: x\nmomentum: 2\n")
    Path("unknown.yaml").write_text("epoch: 3\nyyy: 2\nzzz: 1\n")
    with pytest.raises(ConfigError) as error:
        parse(*words.split())
    said = str(error.value)
    if words == "--config unknown.yaml":
        assert said.startswith("unknown.yaml has unknown settings 'epoch' (did you mean epochs?), 'yyy', 'zzz'; ")
    else:
        assert len(said.splitlines()) == 3 and all(word in said for word in words.split() if word.startswith("--b"))
        assert ("momentum in recipe.yaml is 2" in said and "--seed is '-3'" in said) == ("recipe.yaml" in words)


@pytest.mark.parametrize(
    ("text", "said"),
    (
        ("epochs: many\n", ("epochs in", "recipe.yaml", "'many'", "valid integer")),
        ("momentum: 2\n", ("momentum in", "recipe.yaml", "2", "less than 1")),
        ("epochs: true\n", ("epochs in", "True", "a number")),
        ("lerning_rate: 1\n", ("recipe.yaml has an unknown setting 'lerning_rate'", "did you mean learning_rate?")),
        ("batch-size: 8\n", ("unknown setting 'batch-size'", "did you mean batch_size?")),
        ("zzz: 1\n", ("unknown setting 'zzz'", "--help")),
        ("17: 1\n", ("unknown setting '17'",)),
        ("- epochs\n", ("holds a list", "name: value")),
        ("epochs: [\n", ("recipe.yaml is not YAML", "name: value")),
        ("batch_size: 4\nglobal_batch_size: 8\n", ("--batch-size 4", "--global-batch-size 8")),
    ),
)
def test_errors_in_the_file(recipe, text, said):
    with pytest.raises(ConfigError) as error:
        parse("--config", recipe(text))
    assert [part for part in said if part not in str(error.value)] == [] and "\n" not in str(error.value)


def test_a_variable_that_is_not_set_is_no_recipe():
    with pytest.raises(ConfigError, match="--config was given an empty value"):
        parse("--config", "")


def test_a_batch_size_beats_the_files_but_micro_batches_are_never_dropped_in_silence(recipe):
    path = recipe("global_batch_size: 128\nmicro_batch_size: 64\n")
    with pytest.raises(ConfigError, match="cuts the global batch, not --batch-size 32; give .*--micro-batch-size none"):
        parse("--config", path, "--batch-size", 32)
    found = parse("--config", path, "--batch-size", 32, "--micro-batch-size", "none")
    assert (found.batch_size, found.global_batch_size, found.micro_batch_size) == (32, None, None)
    found = parse("--config", path, "--batch-size", "none")
    assert (found.batch_size, found.global_batch_size, found.micro_batch_size) == (None, 128, 64)


def test_a_feature_of_the_file_is_switched_off_by_one_flag(recipe):
    path = recipe("plateau_patience: 3\nplateau_factor: 0.5\nearly_stopping_patience: 5\nbaseline: 0.4\n")
    found = parse("--config", path, "--plateau-patience", 0, "--early-stopping-patience", 0)
    assert (found.plateau_patience, found.plateau_factor, found.baseline) == (0, 0.1, None)


@pytest.mark.parametrize("path", sorted((ROOT / "launch" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_a_configuration_of_the_data_it_is_named_after(path):
    found = parse("--config", path, *([] if "shapes" in path.stem else ["--data-dir", "images"]))
    network, _, _ = found.model.removeprefix("keras:").lower().partition("_")
    assert network in path.stem.split("_") and ("shapes" in path.stem) == (found.dataset == "shapes")


def test_an_empty_file_is_the_default(recipe):
    assert parse("--config", recipe("# nothing yet\n")) == TrainConfig()


def test_a_configuration_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().epochs = 3
