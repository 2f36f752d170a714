"""From the command line, and the file it may name, to a TrainConfig.

A flag beats the file given by ``--config``, the file beats the default.  Flags and file values take the same way
through pydantic, so that both are checked alike and both errors read alike; tyro draws the ``--help`` page.
"""

import difflib
from pathlib import Path

import pydantic

from launch.job.config import ConfigError, TrainConfig
from launch.job.text_files import TextError, decoded, parse_yaml, read_content, shortened
from launch.job.user import code as user_code


def parse_arguments(argv: list[str], *, program: str, description: str, preset: dict | None = None) -> TrainConfig:
    """Build the configuration from the command line and the file it may name.

    Args:
        argv: the words behind the program's name.
        program: the name shown by ``--help``.
        description: the text above the flags there.
        preset: values that replace the defaults.

    Raises:
        ConfigError: a flag or a name that is unknown, else all values that are wrong, else all that do not go together;
            a sentence for each.
    """
    if "--help" in argv or "-h" in argv:
        import tyro  # which a start need not wait for

        defaults = {name: field.default for name, field in TrainConfig.model_fields.items()} | (preset or {})
        description += (
            "\n\n--config FILE.yaml reads settings from a file (names as below, with underscores); "
            "a flag beats the file."
        )
        tyro.cli(
            TrainConfig,
            prog=program,
            description=description,
            args=["--help"],
            default=TrainConfig.model_construct(**defaults),
        )
    flags = _read_flags(argv)
    path = flags.pop("config", None)
    values = (preset or {}) | (_read_file(Path(path)) if path else {})
    for name in _overruled(flags):
        values.pop(name, None)
    values |= flags
    try:
        config = TrainConfig(**values)
    except pydantic.ValidationError as error:
        # A value that may be one thing or another has an error for each.
        settings: dict[tuple, list] = {}
        for one in error.errors():
            settings.setdefault(one["loc"][:1], []).append(one)
        from_file = {name: path and name and name[0] not in flags for name in settings}
        sentences = [_sentence(ways, path if from_file[name] else None) for name, ways in settings.items()]
        raise ConfigError("\n  ".join(sentences)) from None
    for name in ("model", "dataset", "callbacks", "schedule"):
        reference = getattr(config, name)
        if reference is not None and user_code.is_reference(reference):
            user_code.find_file(reference, f"--{name}")
    return config


def _overruled(flags: dict):
    """Settings of the file that mean nothing beside these flags: the same said in another way, or what belongs to a
    feature that a flag switches off."""
    given = {name for name, value in flags.items() if str(value).lower() not in ("none", "null")}
    for one, other in (("batch_size", "global_batch_size"), ("global_batch_size", "batch_size")):
        if one in given and other not in given:
            yield other
    if flags.get("early_stopping_patience") == "0":
        yield from {"baseline", "start_from_epoch"} - given
    if flags.get("weight_decay") in ("0", "0.0"):
        yield from {"decay_all"} - given
    if flags.get("plateau_patience") == "0":
        yield from {"plateau_factor", "plateau_cooldown"} - given


def _read_flags(argv: list[str]) -> dict[str, str | bool]:
    """Turn ``--some-flag value``, ``--some_flag=value``, ``--switch`` and ``--no-switch`` into a dict."""
    switches = {name for name, field in TrainConfig.model_fields.items() if field.annotation is bool}
    flags, words = {}, list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigError(
                f"'{word}' was given where a flag was expected; flags begin with --, for example --epochs 10"
            )
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if not equals and name.removeprefix("no_") in switches:
            follows = words[0].lower() if words else ""
            value = words.pop(0) if name in switches and follows in ("true", "false") else not name.startswith("no_")
            name = name.removeprefix("no_")
        elif not equals:
            if not words or words[0].startswith("--"):
                _check_name(name, word)
                raise ConfigError(f"{word} was given without a value; write {word} VALUE")
            value = words.pop(0)
        _check_name(name, word)
        if value == "":
            # An unset variable in a job's script, most likely.
            flag = word.rstrip("=")
            raise ConfigError(f"{flag} was given an empty value; write {flag} VALUE or leave it out")
        flags[name] = value
    return flags


def _check_name(name: str, shown: str) -> None:
    if name != "config" and name not in TrainConfig.model_fields:
        raise ConfigError(f"{shown.partition('=')[0]} is not a flag{_closest(name, '--')}; --help lists all flags")


def _closest(name: str, prefix: str) -> str:
    matches = difflib.get_close_matches(name, TrainConfig.model_fields, n=1)
    if not matches:
        return ""
    return f" (did you mean {prefix}{matches[0].replace('_', '-') if prefix else matches[0]}?)"


def _read_file(path: Path) -> dict:
    try:
        text = decoded(read_content(path))
    except TextError as error:
        raise ConfigError(f"--config {path} cannot be read ({error}); name an existing YAML file") from None
    try:
        values = parse_yaml(text)
    except TextError as error:
        raise ConfigError(
            f"--config {path} is not YAML ({error}); mend it or write one 'name: value' per line"
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path} holds a {type(values).__name__}; expected lines of the form 'name: value'")
    unknown = [str(name) for name in values if name not in TrainConfig.model_fields]
    if unknown:
        names = ", ".join(f"'{shortened(name)}'{_closest(name, '')}" for name in unknown)
        kind = "an unknown setting" if len(unknown) == 1 else "unknown settings"
        raise ConfigError(f"{path} has {kind} {names}; train.py --help lists all settings")
    return values


def _sentence(errors: list[dict], path: str | None) -> str:
    """Say in one sentence what pydantic found about one setting, or what does not go together."""
    first = errors[0]
    if not first["loc"]:
        return str(first["ctx"]["error"])
    name, got = str(first["loc"][0]), first["input"]
    shown = f"{name} in {path}" if path else f"--{name.replace('_', '-')}"
    expected = " or ".join(dict.fromkeys(_expected(error) for error in errors))
    return f"{shown} is {shortened(repr(got))}; expected {expected}"


def _expected(error: dict) -> str:
    if error["type"] in ("missing", "too_long"):
        return "two step numbers A,B"
    if error["type"] == "string_pattern_mismatch":
        return "keras:NAME" if "keras" in error["ctx"]["pattern"] else "FILE.py:FUNCTION"
    return error["msg"].removeprefix("Input should be ").replace(", unable to parse string as an integer", "")
