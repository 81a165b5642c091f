import math

import pytest

from calmkit.training import TrainingSettings


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number of at least 1; got True"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"micro_batch": 0}, "micro_batch must be a whole number of at least 1; got 0"),
        ({"micro_batch": 1.5}, "micro_batch must be"),
        ({"log_every": 0}, "log_every must be"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be"),
        ({"warmup_steps": -1}, "warmup_steps must be a whole number of at least 0"),
        ({"warmup_steps": 11}, "warmup_steps must be at most steps = 10"),
        ({"validate_every": -1}, "validate_every must be"),
        ({"checkpoint_every": -1}, "checkpoint_every must be"),
        ({"decay_to": 1.5}, r"decay_to must be in \[0, 1\]"),
        ({"decay_to": math.nan}, "decay_to"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0; use inf"),
        ({"clip_norm": math.nan}, "clip_norm"),
        ({"ema": 0.0}, r"ema must be in \(0, 1\)"),
        ({"ema": 1}, r"ema must be in \(0, 1\), the share .* got 1"),
        ({"ema": math.nan}, "ema"),
    ],
)
def test_bad_number_is_refused_by_name(changes, match):
    with pytest.raises(ValueError, match=match):
        TrainingSettings(**{"steps": 10, "warmup_steps": 2, **changes})


def test_edges_are_allowed():
    TrainingSettings(1, warmup_steps=1, decay_to=0.0, clip_norm=math.inf)
