"""A checkpoint is whole or not there, whatever happens while it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lcm_data.errors import CheckpointError, StorageError
from lcm_models.train.checkpoint import COMPLETE, complete_ones, is_complete, save_checkpoint, step_of, thin_out
from lcm_models.train.distributed import World
from lcm_models.train.weights import load_tensors, save_tensors

ALONE = World(0, 1, torch.device("cpu"))


def write(folder: Path) -> None:
    (folder / "weights").write_text("a" * 100)
    (folder / "inner").mkdir()
    (folder / "inner" / "optimizer").write_text("b" * 50)


def test_only_whole_ones_are_listed(tmp_path: Path) -> None:
    for step in (100_000_000, 5, 20):
        assert step_of(save_checkpoint(tmp_path, step, ALONE, write)) == step
    (tmp_path / "notes").mkdir()
    assert [step_of(each) for each in complete_ones(tmp_path)] == [5, 20, 100_000_000]
    (tmp_path / "step-00000020" / "inner" / "optimizer").write_text("b" * 49)
    assert [step_of(each) for each in complete_ones(tmp_path)] == [5, 100_000_000]
    assert complete_ones(tmp_path / "none") == []


@pytest.mark.parametrize("damage", ["weights", "complete.json", "inner/optimizer"])
def test_one_with_a_file_missing_is_not_whole(tmp_path: Path, damage: str) -> None:
    made = save_checkpoint(tmp_path, 1, ALONE, write)
    assert is_complete(made)
    (made / damage).unlink()
    assert not is_complete(made)


def test_a_failure_leaves_the_earlier_ones(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, ALONE, write)

    def fail(folder: Path) -> None:
        write(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="step-00000002: the disk is full"):
        save_checkpoint(tmp_path, 2, ALONE, fail)
    assert [step_of(each) for each in complete_ones(tmp_path)] == [1]
    assert is_complete(save_checkpoint(tmp_path, 2, ALONE, write))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_what_a_killed_run_left_half_written_goes(tmp_path: Path) -> None:
    left = tmp_path / ".step-00000007.partial"
    left.mkdir()
    write(left)
    save_checkpoint(tmp_path, 9, ALONE, write)
    assert [each.name for each in tmp_path.iterdir()] == ["step-00000009"]


def test_what_a_killed_run_left_half_deleted_goes(tmp_path: Path) -> None:
    """And nothing else: neither whole checkpoints, nor damaged ones, nor what is not a checkpoint."""
    half, whole, damaged = (save_checkpoint(tmp_path, step, ALONE, write) for step in (1, 2, 3))
    (half / COMPLETE).unlink()
    (half / "weights").unlink()
    (damaged / "weights").write_text("short")
    for name in ("notes", "step-5", "step-00000005.bak"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000006").write_text("a file")
    others = {each.name for each in tmp_path.iterdir()} - {half.name}
    during: list[set[str]] = []

    def look(folder: Path) -> None:
        during.append({each.name for each in tmp_path.iterdir()} - {folder.name})
        write(folder)

    made = save_checkpoint(tmp_path, 9, ALONE, look)
    assert during == [others]
    assert {each.name for each in tmp_path.iterdir()} == {*others, made.name}
    assert is_complete(whole)


def test_a_run_that_dies_while_it_deletes_is_tidied_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(folder: Path) -> None:
        raise KeyboardInterrupt

    for step in (1, 2):
        save_checkpoint(tmp_path, step, ALONE, write)
    with monkeypatch.context() as patch:
        patch.setattr("lcm_models.train.checkpoint.shutil.rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            thin_out(tmp_path, keep_last=1, keep_every=0)
    assert [step_of(each) for each in complete_ones(tmp_path)] == [2]
    save_checkpoint(tmp_path, 3, ALONE, write)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_a_full_disk_is_said_so(small_disk: Path) -> None:
    def big(folder: Path) -> None:
        save_tensors({"w": torch.zeros(1_000_000)}, folder / "model.safetensors")

    save_checkpoint(small_disk / "c", 1, ALONE, write)
    with pytest.raises(StorageError, match="step-00000002"):
        save_checkpoint(small_disk / "c", 2, ALONE, big)
    assert [step_of(each) for each in complete_ones(small_disk / "c")] == [1]


def test_one_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    made = save_checkpoint(tmp_path, 1, ALONE, write)
    (made / "mark").touch()
    assert save_checkpoint(tmp_path, 1, ALONE, write) == made
    assert (made / "mark").exists()


def test_old_ones_go_except_every_so_often(tmp_path: Path) -> None:
    for step in range(1, 11):
        save_checkpoint(tmp_path, step, ALONE, write)
        thin_out(tmp_path, keep_last=2, keep_every=4)
    assert [step_of(each) for each in complete_ones(tmp_path)] == [4, 8, 9, 10]
    thin_out(tmp_path, keep_last=1, keep_every=0)
    assert [each.name for each in tmp_path.iterdir()] == ["step-00000010"]


def test_weights_come_back_and_others_are_refused(tmp_path: Path) -> None:
    shared = torch.randn(3, 2)
    tensors = {"a": shared, "tied": shared, "b": torch.arange(4).float()[::2]}
    save_tensors(tensors, tmp_path / "w.safetensors")
    empty = {name: torch.zeros(value.shape) for name, value in tensors.items()}
    load_tensors(empty, tmp_path / "w.safetensors")
    assert all(torch.equal(empty[name], value) for name, value in tensors.items())
    with pytest.raises(CheckpointError, match="another model: 2 names differ, c, tied"):
        load_tensors({"a": empty["a"], "b": empty["b"], "c": empty["b"]}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"a is \(3, 2\) there and \(3, 3\) here"):
        load_tensors({**empty, "a": torch.zeros(3, 3)}, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_tensors(empty, tmp_path / "w.safetensors")
