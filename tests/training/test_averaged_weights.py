"""The moving average of weights: its formula, its checkpoints, and where it is measured."""

import copy
import weakref

import pytest
import torch
from training_problems import Toy, batch_at, run, settings

from calmkit.cluster import sharding
from calmkit.training import AveragedWeights, CheckpointError
from calmkit.training.checkpoint import find_checkpoints


def with_average(steps=12, **changes):
    return settings(steps, **{"ema": 0.8, **changes})


def weights_by_step(steps):
    """The trained weights before step 0, 1, ..., and after the last step."""
    seen = []

    def watch(step):
        seen.append({name: p.detach().clone() for name, p in toy.named_parameters()})
        return batch_at(step)

    toy = Toy()
    run(toy, batches=watch, settings=with_average(steps), validate=None)
    seen.append({name: p.detach().clone() for name, p in toy.named_parameters()})
    return seen[1:]  # `fit` looks at the first batch once more


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_is_the_formula_as_a_loop():
    module = Toy()
    result = run(module, settings=with_average())
    before, *after = weights_by_step(12)
    for name, average in result.average.state_dict().items():
        want = before[name].double()
        for t, weights in enumerate(after):
            decay = min(0.8, (1 + t) / (10 + t))
            want = decay * want + (1 - decay) * weights[name].double()
        torch.testing.assert_close(average.double(), want)
        assert not torch.equal(average, dict(module.named_parameters())[name])
    # 12 + 1 out of 12 + 10 is below 0.8: the ramp alone would not end at the decay.
    assert result.average.decay_at(11) == 12 / 21 and result.average.decay_at(100) == 0.8


def test_only_trained_weights_are_averaged_once_each():
    names = run(Toy(), settings=with_average()).average.state_dict().keys()
    assert names == {n for n, p in Toy().named_parameters() if p.requires_grad}
    assert "output.weight" not in names and "embedding.weight" in names  # tied
    assert "frozen.weight" not in names


def test_the_training_does_not_depend_on_the_average():
    with_it, without = Toy(), Toy()
    run(with_it, settings=with_average(validate_every=3))
    run(without, settings=settings(validate_every=3))
    assert same(with_it.state_dict(), without.state_dict())


def test_validation_measures_both_and_names_them():
    result = run(Toy(), settings=with_average(validate_every=6))
    for _, values in result.validation:
        assert values.keys() == {"weight", "ema_weight"}
    module = copy.deepcopy(Toy())
    result = run(module, settings=with_average())
    last, averaged = result.validation[-1][1]["weight"], result.validation[-1][1]["ema_weight"]
    assert last == float(module.mix.weight.detach().sum()) != averaged
    with result.averaged():
        assert averaged == float(module.mix.weight.detach().sum())
    assert last == float(module.mix.weight.detach().sum())


def test_the_own_weights_come_back_after_an_error():
    module = Toy()
    result = run(module, settings=with_average())
    own = copy.deepcopy(module.state_dict())
    with pytest.raises(KeyboardInterrupt), result.averaged():
        assert not same(own, module.state_dict())
        raise KeyboardInterrupt
    assert same(own, module.state_dict())


def test_no_average_without_the_setting():
    module = Toy()
    result = run(module)
    assert result.average is None
    own = copy.deepcopy(module.state_dict())
    with result.averaged():
        assert same(own, module.state_dict())


@pytest.mark.parametrize("stop", [2, 7])
def test_a_run_that_died_resumes_bitwise(tmp_path, stop):
    whole = run(Toy(), settings=with_average())

    def dying(step):
        if step == stop:
            raise KeyboardInterrupt
        return batch_at(step)

    with pytest.raises(KeyboardInterrupt):
        often = with_average(checkpoint_every=1)
        run(Toy(), batches=dying, directory=tmp_path, settings=often)
    assert find_checkpoints(tmp_path)[-1].name == f"step-{stop:06d}"
    resumed = run(Toy(), directory=tmp_path, settings=with_average())
    assert same(resumed.average.state_dict(), whole.average.state_dict())
    # A finished run gives its average, too.
    again = run(Toy(), directory=tmp_path, settings=with_average())
    assert same(again.average.state_dict(), whole.average.state_dict())


def test_the_average_is_part_of_a_run(tmp_path):
    run(Toy(), directory=tmp_path, settings=with_average())
    for other in (None, 0.9):
        with pytest.raises(CheckpointError, match="ema must be as in checkpoint"):
            run(Toy(), directory=tmp_path, settings=with_average(ema=other))
    file = find_checkpoints(tmp_path)[-1] / "ema.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ema\.safetensors does not match its checksum"):
        run(Toy(), directory=tmp_path, settings=with_average())
    file.unlink()
    with pytest.raises(CheckpointError, match=r"ema\.safetensors is missing"):
        run(Toy(), directory=tmp_path, settings=with_average())


def test_averages_of_bfloat16_keep_their_digits():
    module = torch.nn.Linear(4, 4).bfloat16()
    average = AveragedWeights(module, 0.9999)
    with torch.no_grad():
        module.weight.fill_(1.0)
        average.copy_to_module()
        before = average.state_dict()["weight"].clone()
        module.weight.fill_(1.0)
    for step in range(10**6, 10**6 + 100):
        average.update(step)
    got = average.state_dict()["weight"]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, 1 - (1 - before) * 0.9999**100)


def test_other_averages_are_refused():
    average = AveragedWeights(torch.nn.Linear(2, 3), 0.9)
    state = average.state_dict()
    for wrong in ({"weight": state["weight"]}, {**state, "bias": torch.zeros(2)}):
        with pytest.raises(ValueError, match="'bias' differs"):
            average.load_state_dict(wrong)


def test_sharded_parameters_are_averaged_in_their_shards(monkeypatch):
    """FSDP2 turns parameters into `DTensor`s; here with one process and no devices but the CPU.

    Large ones are gathered one by one: a device that holds shards may have no room for all.
    """
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        plain, module = Toy(), Toy()
        fully_shard(module)
        average, want = AveragedWeights(module, 0.8), AveragedWeights(plain, 0.8)
        with torch.no_grad():
            for one in (*plain.parameters(), *module.parameters()):
                one.mul_(2.0)
        average.update(3)
        want.update(3)
        for name, tensor in average.state_dict().items():
            assert type(tensor).__name__ == "DTensor"
            torch.testing.assert_close(tensor.full_tensor(), want.state_dict()[name])
        with average.applied():
            got = module.mix.weight.full_tensor().clone()  # with one process a view
        torch.testing.assert_close(got, want.state_dict()["mix.weight"])
        torch.testing.assert_close(module.mix.weight.full_tensor(), plain.mix.weight.detach())
        found = []

        def whole(tensor):
            assert not any(earlier() is not None for earlier in found)
            full = tensor.full_tensor().clone()
            found.append(weakref.ref(full))
            return full

        monkeypatch.setattr(sharding, "whole", whole)
        monkeypatch.setattr(sharding, "_BYTES_AT_ONCE", 0)
        assert same(average.of_whole(Toy()).state_dict(), want.state_dict())
        assert len(found) == len(want.state_dict())
    finally:
        distributed.destroy_process_group()
