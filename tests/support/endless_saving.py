"""Work for processes that are killed: each saves as fast as it can and says when it begins."""

import itertools
import time

import forking
import torch

from calmkit.autoencoders import MLPAutoencoder
from calmkit.heads import EnergyHead
from calmkit.interop import save_published
from calmkit.saving import save

VALUE_OF_WIDTH = {256: 0.0, 512: 1.0}


def heads():
    """One of each width; all weights of a head are one number."""
    built = [EnergyHead(3, 2, width=width) for width in VALUE_OF_WIDTH]
    for head, value in zip(built, VALUE_OF_WIDTH.values(), strict=True):
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.fill_(value)
    return built


def heads_in_turn(folder):
    """Save one head over another again and again."""
    ours = itertools.cycle(heads())
    print("begins", flush=True)
    for head in ours:
        save(head, folder)


def published_folders(folder):
    """Write one folder after another in the published format."""
    autoencoder = MLPAutoencoder(2, 2000, 5, width=128)
    print("begins", flush=True)
    for number in itertools.count():
        save_published(autoencoder, folder / str(number))


def killed_after(seconds, work, folder, output):
    """The exit code of a process that is killed some seconds after its work began."""
    output.write_text("")
    process = forking.start(work, folder, output=output)
    until = time.monotonic() + 60
    while not output.read_text() and process.is_alive() and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(seconds)
    return forking.finished(process, seconds=0)
