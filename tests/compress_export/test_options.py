"""JobOptions, sizes with units, and the merge of command line and job file."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress_export.errors import UsageError
from compress_export.job_file import resolve_options
from compress_export.options import JobOptions
from compress_export.sizes import mib, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1MiB", 1_048_576),
        ("500KiB", 512_000),
        ("2MB", 2_000_000),
        ("1.5 mib", 1_572_864),
        ("123456B", 123_456),
        ("1GiB", 1_073_741_824),
    ],
)
def test_sizes_with_units(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "12", "1.5", "MiB", "1 M", "1Mib/s", "-1MiB", "0KiB", "0.1B"])
def test_sizes_without_a_usable_unit_or_below_a_byte_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size|byte"):
        parse_size(text)


@given(st.integers(min_value=1, max_value=2**45))
def test_bytes_survive_the_round_trip_through_text(size_bytes: int) -> None:
    assert parse_size(f"{size_bytes}B") == size_bytes


def test_mib_keeps_three_digits() -> None:
    assert [mib(2**20), mib(1.5 * 2**20), mib(22_000), mib(128.74 * 2**20)] == [
        "1.00",
        "1.50",
        "0.0210",
        "129",
    ]


def test_defaults() -> None:
    options = JobOptions(board="jetson")
    assert (options.model, options.data, options.seed, options.device) == (
        "resnet20",
        "digits",
        0,
        "cpu",
    )
    assert options.stages == ("prune", "quantize", "bench")
    assert options.formats is None
    assert options.calibration_samples == 512
    assert (options.method, options.augment) == ("decore", "auto")


def test_lists_triples_and_sizes_are_read_from_text() -> None:
    options = resolve_options(
        {
            "board": "jetson",
            "stages": "bench, prune",
            "formats": "tflite,onnx",
            "mean": "0.5,0.4,0.3",
            "std": "0.2,0.2,0.2",
            "target_size": "500KiB",
            "target_macs": "0.5",
            "out": "~/x",
        }
    )
    assert options.stages == ("prune", "bench")  # in the order in which they run
    assert options.formats == ("onnx", "tflite")
    assert options.mean == (0.5, 0.4, 0.3)
    assert options.target_size == options.target_size_bytes == 512_000
    assert options.target_macs == 0.5
    assert options.out == Path.home() / "x"


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("target_macs", "1.5", "--target-macs 1.5: must be above 0 and at most 1"),
        ("target_macs", "0", "--target-macs 0: must be above 0"),
        ("target_macs", "nan", "--target-macs nan: must be above 0"),
        ("target_size", "3", "--target-size 3: '3' is not a size: give a number with B, KB"),
        ("target_size", "9" * 400 + "MiB", "99...' is more than 8 EiB"),
        ("target_latency", "9" * 400 + "ms", "99...' is more than a day"),
        ("learning_rate", "inf", "--learning-rate inf: must be a finite number"),
        ("out", "/", "--out /: is the root of the file system; choose a folder in it"),
        ("stages", "prune,bake", "'prune', 'quantize' or 'bench'"),
        ("formats", "", "names nothing"),
        ("precision", "int4", "must be 'float32', 'float16', 'int8'"),
        ("precision", "", "names nothing"),
        ("calibration", "kl", "must be 'minmax', 'moving-average', 'percentile', 'entropy' or"),
        ("weight_scales", "both", "must be 'per-channel' or 'per-tensor'"),
        ("mean", "0.5", "three numbers"),
        ("device", "gpu", "--device gpu"),
        ("seed", "x", "--seed x: must be a valid integer"),
        ("seed", "-1", "--seed -1: must be greater than or equal to 0"),
        ("input_size", "4", "--input-size 4"),
        ("validation_share", "0.9", "--validation-share 0.9"),
        ("method", "magic", "must be 'decore', 'paper'"),
        ("penalty", "100", "--method paper"),
        ("batch_size", "1", "--batch-size 1"),
        ("schedule", "linear", "--schedule linear: must be 'one-cycle' or 'cosine'"),
        ("regularizer", "l3", "--regularizer l3: must be 'l1' or 'l2'"),
        ("weight_decay", "-1", "--weight-decay -1: must be greater than or equal to 0"),
        ("weight_decay", "nan", "--weight-decay nan"),
        ("weight_decay", "5", "--weight-decay 5: must be less than 1"),
        ("distill", "maps", "--distill maps: must be 'logits', 'features' or 'none'"),
        ("teacher_model", "resnet56", "give --teacher FILE"),
    ],
)
def test_mistakes_name_option_value_and_what_is_allowed(option: str, value: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_options({"board": "jetson", option: value})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mean_without_std_is_refused() -> None:
    with pytest.raises(UsageError, match="--mean and --std belong together"):
        resolve_options({"board": "jetson", "mean": "0,0,0"})


@pytest.mark.parametrize("mean", ["nan,0,0", "0,inf,0"])
def test_a_mean_is_finite(mean: str) -> None:
    with pytest.raises(UsageError, match="--mean.* must be a finite number"):
        resolve_options({"board": "jetson", "mean": mean, "std": "1,1,1"})


def test_a_teacher_with_nothing_to_teach_is_refused() -> None:
    with pytest.raises(UsageError, match="--teacher has nothing to teach with --distill none"):
        resolve_options({"board": "jetson", "teacher": "t.pt", "distill": "none"})
    options = resolve_options({"board": "jetson", "teacher": "~/t.pt", "teacher_model": "vgg16"})
    assert (options.teacher, options.teacher_model) == (Path.home() / "t.pt", "vgg16")


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"target_macs": 0.05}, "--target-macs 0.05: --stages quantize,bench prunes nothing"),
        ({"method": "taylor"}, "--method taylor: --stages quantize,bench"),
        ({"method": "paper", "penalty": 2}, "--penalty 2.0: --stages quantize,bench"),
        ({"method": "l1", "rounds": 2}, "--rounds 2: --stages quantize,bench"),
    ],
)
def test_what_only_pruning_can_do_is_refused_without_it(wish: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        resolve_options({"board": "jetson", "stages": "quantize,bench", **wish})
    for stages in ("prune", "bench"):  # a bench alone compares with what made the files
        resolve_options({"board": "jetson", "stages": stages, **wish})
    budgets = {"target_size": "1MiB", "target_latency": "5ms", "max_drop": 2.0}
    epochs = {"search_epochs": 1, "finetune_epochs": 1, "method": "decore", "rounds": 1}
    resolve_options({"board": "jetson", "stages": "quantize,bench", **budgets, **epochs})


def test_all_mistakes_come_in_one_message() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_options({"board": "jetson", "seed": "x", "target_macs": "7", "method": "magic"})
    assert all(word in str(caught.value) for word in ("--seed", "--target-macs", "--method"))


def test_a_missing_board_lists_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match="--board is missing.*jetson"):
        resolve_options({})


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "board: rpi4\nseed: 3\ntarget-macs: 0.3\nsearch_epochs: 2\nstages: [prune]\n"
        "target-size: 1MiB\nforce: true\nweights: null\n"
    )
    options = resolve_options({"config": str(job), "board": "jetson", "seed": "5", "force": None})
    assert (options.board, options.seed) == ("jetson", 5)
    assert (options.target_macs, options.search_epochs) == (0.3, 2)
    assert (options.stages, options.target_size, options.force) == (("prune",), 2**20, True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("tarjet-macs: 0.3", "unknown option 'tarjet-macs', did you mean 'target-macs'?"),
        ("zzzzz: 1", "unknown option 'zzzzz', known: activation-range"),
        ("config: other.yaml", "unknown option 'config'"),
        ("seed: 1\ntarget-macs: 0.3\ntarget_macs: 0.4", "twice"),
        ("seed: 1\nseed: 2", "written twice"),
        ("- seed", "holds a list"),
        ("seed: [", "not valid YAML"),
        ("seed: x", "--seed x: must be a valid integer"),
        ("target-size: 1048576", "with a unit"),
    ],
)
def test_mistakes_of_a_job_file(tmp_path: Path, content: str, says: str) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(content)
    with pytest.raises(UsageError) as caught:
        resolve_options({"config": str(job), "board": "jetson"})
    assert says in str(caught.value)
    assert str(job) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_job_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        resolve_options({"config": str(tmp_path / "none.yaml")})
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read|not valid YAML"):
        resolve_options({"config": str(tmp_path / "job.yaml")})


def test_an_empty_job_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("# nothing yet\n")
    options = resolve_options({"config": str(tmp_path / "job.yaml"), "board": "jetson"})
    assert options.model == "resnet20"


def test_identity_rebuilds_the_job_and_ignores_where_it_goes() -> None:
    first = JobOptions(board="jetson", target_size="1MiB", mean="0,0,0", std="1,1,1", out="a")
    again = first.model_copy(update={"out": Path("b"), "resume": True, "force": True})
    assert first.identity() == again.identity()
    assert first.identity() != first.model_copy(update={"seed": 1}).identity()
    rebuilt = JobOptions(**first.identity())
    assert rebuilt.identity() == first.identity()
    assert rebuilt.target_size == 2**20
