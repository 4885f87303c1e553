"""Configuration: every problem at once, YAML without its traps, overrides, and back to YAML."""

import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfg_core.backend import FLOAT_TYPES
from transfg_core.config.loading import (
    apply_overrides,
    build_config,
    differing_keys,
    dump_config,
    load_config,
)
from transfg_core.config.sections import Config
from transfg_core.config.vit import SIZES
from transfg_core.errors import UserError


def write(folder, text):
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(*overrides):
    """The lines of the error, the first one aside."""
    with pytest.raises(UserError) as caught:
        load_config(None, overrides)
    assert caught.value.exit_code == 2
    head, *lines = str(caught.value).splitlines()
    assert f"{len(lines)} problem" in head
    return [line.strip() for line in lines]


def test_every_problem_at_once(tmp_path):
    path = write(
        tmp_path,
        """
        trian: {steps: 5}
        train: {steps: 0, batchsize: 4}
        optim: {lr: fast, name: sdg}
        data: {flip: 1, crop: [8]}
        """,
    )
    with pytest.raises(UserError) as caught:
        load_config(path, ["loss.label_smoothing=1.0"])
    head, *lines = [line.strip() for line in str(caught.value).splitlines()]
    assert head == f"{path}: {len(lines)} problems in the configuration"
    expected = {
        "trian": "unknown key; did you mean train?",
        "train.steps": "found 0",
        "train.batchsize": "did you mean train.batch_size?",
        "optim.lr": "valid number, found 'fast'",
        "optim.name": "'sgd', 'adam' or 'adamw', found 'sdg'",
        "data.flip": "valid boolean, found 1",
        "data.crop.1": "required",
        "loss.label_smoothing": "less than 1, found 1.0",
    }
    for key, text in expected.items():
        (line,) = [line for line in lines if line.startswith(f"{key}: ")]
        assert text in line
    assert len(lines) == len(expected)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("train.step=3", "did you mean train.steps?"),
        ("model.batch_size=3", "did you mean train.batch_size?"),
        ("lr=3", "did you mean optim.lr?"),
        ("learning_rate=3", "known keys: run, data, model, loss, optim, train"),
        ("train.zzz=1", "known keys: train.steps, train.epochs"),
        ("data.toy.sise=64", "did you mean data.toy.size?"),
    ],
)
def test_an_unknown_key_names_the_nearest(item, text):
    (line,) = problems(item)
    assert text in line


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("train.batch_size=0", "greater than or equal to 1, found 0"),
        ("train.batch_size=2.5", "found 2.5"),
        ("train.batch_size=true", "found True"),
        ("train.batch_size=null", "found None"),
        ("train.batch_size=[4]", r"found [4]"),
        ("optim.lr=-1", "greater than or equal to 0, found -1"),
        ("optim.lr=.nan", "found nan"),
        ("optim.lr=.inf", "finite"),
        ("optim.lr=no", "found 'no'"),
        ("optim.eps=.inf", "finite"),
        ("optim.betas=[0.9, 1.0]", "optim.betas.1"),
        ("optim.betas=[0.9]", "required"),
        ("optim.clip=0", "greater than 0"),
        ("loss.margin=.nan", "found nan"),
        ("loss.contrastive=no", "found 'no'"),
        ("data.random_resized_crop=[0.5, 0.1]", "0 < smallest <= largest <= 1"),
        ("data.random_resized_crop=[.nan, 1]", "0 < smallest <= largest <= 1"),
        ("data.interpolation=nearest", "'bilinear' or 'bicubic', found 'nearest'"),
        ("data.color_jitter=[0.4, 0.4, 0.4]", "data.color_jitter.3"),
        ("data.color_jitter=[0.4, -0.1, 0.4, 0.1]", "data.color_jitter.1"),
        ("data.color_jitter=[0.4, 0.4, 0.4, 0.6]", "less than or equal to 0.5, found 0.6"),
        ("data.grayscale=1.5", "less than or equal to 1, found 1.5"),
        ("data.random_erasing=0.5", "data.random_erasing"),
        ("data.random_erasing.probability=2", "data.random_erasing.probability"),
        ("data.random_erasing.scale=[0, 0.3]", "0 < smallest <= largest <= 1, found [0.0, 0.3]"),
        ("data.random_erasing.aspect=[3.3, 0.3]", "0 < smallest <= largest <= 1000"),
        ("data.random_erasing.value=random", "'zero', 'mean' or 'noise', found 'random'"),
        ("data.mixup=-1", "greater than or equal to 0"),
        ("data.cutmix=.inf", "data.cutmix"),
        ("data.mix_prob=1.01", "data.mix_prob"),
        ("data.resize=0", "data.resize"),
        ("data.name=birds", "'toy'"),
        ("model.width=10", "width 10 is not a multiple of heads 4"),
        ("model.stride=9", "stride 9 exceeds patch 8"),
        ("model.depth=1", "model.depth"),
        ("model.classes=1", "model.classes"),
        ("run.name=a b", "run.name"),
        ("run.name=../up", "run.name"),
        ("run.seed=-1", "run.seed"),
        ("run.precision=fp16", "'float32', 'tf32', 'bfloat16' or 'float64', found 'fp16'"),
        ("run.precision=64", "'float32', 'tf32', 'bfloat16' or 'float64', found 64"),
        ("run.precision=null", "'float32', 'tf32', 'bfloat16' or 'float64', found None"),
        ("run.precison=float64", "did you mean run.precision?"),
        ("train.precision=float64", "did you mean run.precision?"),
        ("train.accumulation=3", "train.batch_size 32 is not a multiple of train.accumulation 3"),
        ("optim.warmup=1001", "optim.warmup 1001 exceeds train.steps 1000"),
        ("train.epochs=0", "train.epochs: input should be greater than 0"),
        ("data.group=bird", "expected a regular expression with a group"),
        ("data.group=(bird", "expected a regular expression, found '(bird'"),
        ("model.patch=65", "data.crop [64, 64] is smaller than model.patch 65"),
        ("data.resize=32", "shorter side) is smaller than data.crop [64, 64]"),
        ("data.resize=[64, 63]", "data.resize [64, 63] is smaller than data.crop [64, 64]"),
        ("optim.groups=[{match: a, lr: 1}]", "optim.groups.0.lr: unknown key"),
        ("optim.groups=[{lr_scale: 1}]", "optim.groups.0.match: Field required"),
        ("train=5", "train: "),
    ],
)
def test_a_wrong_value(item, text):
    lines = problems(item)
    assert any(text in line for line in lines), lines


def test_problems_between_keys_come_together():
    assert len(problems("train.accumulation=3", "optim.warmup=1001", "data.resize=32")) == 3
    # and beside what concerns one key
    assert len(problems("train.accumulation=3", "optim.warmup=1001", "optim.lr=x")) == 3


def test_yaml_traps(tmp_path):
    text = """
    run: {name: no, dir: "yes"}
    train: {steps: 0010}
    optim: {lr: 3e-2, weight_decay: 1e-4, warmup: 5, eps: 1.e-8, momentum: .5}
    data: {root: 1:30:00, flip: false}
    """
    config = load_config(write(tmp_path, text))
    assert config.run.name == "no" and config.run.dir == "yes"
    assert config.train.steps == 10 and config.optim.warmup == 5
    assert (config.optim.lr, config.optim.weight_decay) == (0.03, 0.0001)
    assert (config.optim.eps, config.optim.momentum) == (1e-8, 0.5)
    assert config.data.root == "1:30:00" and config.data.flip is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {steps: 5, steps: 6}", "steps: given twice, in lines 1 and 1"),
        ("train: {steps: 5}\nrun: {}\ntrain: {steps: 6}", "train: given twice, in lines 1 and 3"),
        ("train:\n\tsteps: 5\n", "not readable as YAML"),
        ("train: {steps: 5", "not readable as YAML"),
        ("- train\n- run\n", "expected sections such as `train:`, found"),
        ("just words", "expected sections"),
        ("5", "expected sections"),
        ("[train]: 5", "expected a word as key"),
        ("{a: 1}: 5", "expected a word as key"),
        ("optim: {lr: 2020-13-45}", "month must be in"),
        ("optim: {lr: !!python/object:os.system x}", "not readable as YAML"),
        ("optim: {lr: !!int fast}", "not readable as YAML"),
        ("train: {steps: " + "9" * 5000 + "}", "not readable as YAML"),
        ("[" * 5000, "not readable as YAML"),
        ("1: 2\n", "1: "),
        ("null: 2\n", "None"),
        ("train: {steps: &a 5, keep: *b}", "not readable as YAML"),
        ("run: {name: \x07}", "not readable as YAML"),
        ("a: 1\n---\nb: 1\n", "not readable as YAML"),
    ],
)
def test_text_that_is_no_configuration(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "null"])
def test_an_empty_file_is_no_configuration(tmp_path, text):
    """A file that a full disk has emptied would train the toy set."""
    with pytest.raises(UserError, match="expected sections .*found nothing; is it the right file"):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize("text", ["train:\n", "train:\nrun: {}\n"])
def test_what_is_empty_is_the_default(tmp_path, text):
    assert load_config(write(tmp_path, text)) == Config()
    assert load_config(write(tmp_path, text), ["train.steps=600"]).train.steps == 600


def test_files_that_cannot_be_read(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    for path, reason in (
        (tmp_path / "absent.yaml", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(UserError, match=f"reading it failed .*{reason}") as caught:
            load_config(path)
        assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="binary.yaml: expected text in UTF-8, .*save it as UTF-8"):
        load_config(binary)
    with pytest.raises(UserError, match="train.keep: expected a section; write `train:` and `keep"):
        load_config(write(tmp_path, "train.keep: 3"))


def test_overrides():
    config = load_config(
        None,
        [
            "optim.lr=3e-3", "data.crop=[32, 48]", "optim.betas=[0.8, 0.9]", "optim.clip=null",
            "model.size=S", "model.patch=16", "data.toy.seed=7", "run.dir=a=b",
            "optim.groups=[{match: 'head.*', lr_scale: 10}, {match: '*', weight_decay: 0.1}]",
            "optim.lr=4e-3",
        ],
    )  # fmt: skip
    assert config.optim.lr == 4e-3 and config.data.crop == (32, 48)
    assert config.optim.betas == (0.8, 0.9) and config.optim.clip is None
    assert config.data.toy.seed == 7 and config.run.dir == "a=b"
    assert (config.model.width, config.model.depth, config.model.stride) == (384, 12, 16)
    assert [group.match for group in config.optim.groups] == ["head.*", "*"]
    assert config.optim.groups[0].weight_decay is None


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("optim.lr", "expected key=value"),
        ("=3", "expected key=value"),
        ("optim..lr=3", "expected key=value"),
        (".=3", "expected key=value"),
        ("optim.lr.x=3", "optim.lr.x: optim.lr is a value"),
        ("optim.lr={a", "override 'optim.lr={a': not readable as YAML"),
        ("optim.lr={a: 1, a: 2}", "given twice"),
    ],
)
def test_overrides_that_are_none(item, message):
    with pytest.raises(UserError) as caught:
        apply_overrides({"optim": {"lr": 0.1}}, [item])
    assert message in str(caught.value)


def test_precision_is_float32_where_a_file_says_nothing(tmp_path):
    """Configurations from before there was the key: files, and those inside checkpoints."""
    assert load_config(write(tmp_path, "run: {name: old, seed: 3}")).run.precision == "float32"
    old = Config().model_dump(mode="json")
    del old["run"]["precision"]
    assert build_config(old, "an old checkpoint") == Config()
    assert set(FLOAT_TYPES) == {"float32", "tf32", "bfloat16", "float64"}
    for precision in FLOAT_TYPES:
        config = load_config(None, [f"run.precision={precision}"])
        assert config.run.precision == precision
        text = dump_config(config)
        assert f"precision: {precision}" in text
        assert load_config(write(tmp_path, text)) == config


def test_a_square_crop():
    assert load_config(None, ["data.crop=32"]).data.crop == (32, 32)
    assert load_config(None, ["data.resize=70"]).data.resize == 70
    assert load_config(None, ["data.resize=[70, 80]"]).data.resize == (70, 80)


def test_sizes_are_filled_in_and_stay_so():
    for size, numbers in SIZES.items():
        model = load_config(None, [f"model.size={size}"]).model
        assert (model.width, model.heads, model.depth, model.mlp) == numbers
    model = load_config(None, ["model.width=24", "model.heads=2", "model.stride=6"]).model
    assert (model.width, model.heads, model.depth, model.stride) == (24, 2, 4, 6)


@settings(deadline=None)
@given(
    lr=st.floats(0, 1e6),
    crop=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    resize=st.none() | st.integers(64, 99) | st.tuples(st.integers(64, 99), st.integers(64, 99)),
    directory=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20),
    clip=st.none() | st.floats(1e-6, 1e6),
)
def test_dump_reads_back_as_equal(tmp_path_factory, lr, crop, resize, directory, clip):
    config = build_config(
        {
            "run": {"dir": directory, "name": "3e-2"},
            "optim": {"lr": lr, "clip": clip, "groups": [{"match": "no", "lr_scale": 1e-7}]},
            "data": {"crop": crop, "resize": resize},
        },
        "test",
    )
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert differing_keys(load_config(path), config) == []


def test_differing_keys():
    left, right = load_config(None), load_config(None, ["optim.lr=0.5", "data.crop=32"])
    assert differing_keys(left, right) == [
        "data.crop: (64, 64) -> (32, 32)",
        "optim.lr: 0.03 -> 0.5",
    ]


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().train.steps = 3
    assert math.isfinite(Config().optim.lr)


def test_values_that_are_too_deep_or_no_sections(tmp_path):
    """Copying them to look for more problems would end in a RecursionError, or a ValueError."""
    for text in ("[" * 250 + "]" * 250, "{a: " * 250 + "}" * 250):
        with pytest.raises(UserError, match="defaults: expected sections such as `train:`"):
            load_config(None, [f"model.width={text}"])
    with pytest.raises(UserError, match="expected sections"):
        build_config(["x"], "file")


@pytest.mark.parametrize(
    "setting",
    ["model.depth=1001", "data.crop=16385", "data.resize=16385", "train.batch_size=65537",
     "train.eval_batch_size=65537", "data.threads=257", "data.workers=257"],
)  # fmt: skip
def test_bounds_that_keep_the_memory_sane(setting):
    with pytest.raises(UserError, match="less than or equal to"):
        load_config(None, [setting])


def test_a_path_without_nul():
    with pytest.raises(UserError, match="data.root: expected a path, found a NUL character"):
        build_config({"data": {"root": "a\0b"}}, "file")


def test_a_run_has_one_length(tmp_path):
    (line,) = problems("train.epochs=3", "train.steps=5")
    assert "train.steps or train.epochs" in line and "null" in line
    path = write(tmp_path, "train: {steps: 5}")
    config = load_config(path, ["train.steps=null", "train.epochs=3", "optim.warmup=1001"])
    assert config.train.epochs == 3
    assert load_config(path, ["train.epochs=null", "optim.warmup=5"]).train.steps == 5
    assert "steps: null" in dump_config(config)
    assert load_config(write(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize("key", ["run.name", "data.group", "data.root", "model.pretrained"])
def test_half_a_surrogate_pair_is_no_text(key):
    with pytest.raises(UserError) as caught:
        load_config(None, [f'{key}="(\\ud800"'])
    assert key in str(caught.value) or "half a surrogate pair" in str(caught.value)
    str(caught.value).encode("ascii")  # can be printed anywhere


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data #1", "data #1"),  # YAML would read the folder `data`
        ("'data #1'", "data #1"),
        ('"a \\u00e4"', "a \u00e4"),
        ("2024", "2024"),
        ("2024-11-26", "2024-11-26"),
        ("1e3", "1e3"),
        ("true", "true"),
        ("[a]: x", "[a]: x"),
        ("*a", "*a"),
        ("~/a", os.path.expanduser("~/a")),
        ("  a ", "a"),
        ("'a' #b", "'a' #b"),
    ],
)
def test_text_is_taken_as_it_is(text, expected):
    assert load_config(None, [f"data.root={text}"]).data.root == expected
    written = load_config(None, [f"model.pretrained={text}"])
    assert written.model.pretrained == expected
    for none in ("null", " null ", "~", "Null"):
        assert load_config(None, [f"model.pretrained={none}"]).model.pretrained is None
    with pytest.raises(UserError, match="start of a comment"):
        load_config(None, ["optim.lr=0.5 #1"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("data: {root: 2024}", "data.root: expected text, found 2024; put text into quotes"),
        ("run: {name: 2024-11-26}", "run.name: expected text, found datetime.date(2024, 11, 26)"),
        ("run: {name: a/b}", "expected a name of letters, digits and . _ + -"),
    ],
)
def test_what_is_no_text_or_no_name_is_said_in_words(tmp_path, given, said):
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, given))
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_mixing_needs_two_images(key):
    load_config(None, [f"data.{key}=0.2", "train.batch_size=2"])
    (line,) = problems(f"data.{key}=0.2", "train.batch_size=1")
    assert "train.batch_size" in line and "found 1 image" in line and "set both to 0" in line


def test_a_configuration_without_the_newer_transforms_has_their_defaults():
    """Older checkpoints lack these keys."""
    tree = Config().model_dump(mode="json")
    for key in ("interpolation", "color_jitter", "grayscale", "random_erasing", "mixup", "cutmix",
                "mix_prob", "mix_switch_prob"):  # fmt: skip
        del tree["data"][key]
    assert build_config(tree, "older") == Config()
