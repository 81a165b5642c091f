"""The published networks, written out plainly over tensors by their published names.

One vector, position or chunk at a time, from the paper and the published shapes: what the loaded
parts must compute. `w` is the content of a weights file.
"""

import math

import torch
from torch.nn.functional import layer_norm, silu, softmax


def linear(w, name, x):
    y = w[f"{name}.weight"] @ x
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def rms_norm(w, name, x, eps):
    return x / (x.square().mean() + eps).sqrt() * w[f"{name}.weight"]


def norm(w, name, x):
    return layer_norm(x, x.shape, w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)


def swiglu(w, name, x):
    gated = silu(linear(w, f"{name}.gate_proj", x)) * linear(w, f"{name}.up_proj", x)
    return linear(w, f"{name}.down_proj", gated)


def stage(w, layers, numbers, x, eps):
    for n in numbers:
        x = x + swiglu(w, f"{layers}.{n}.mlp", rms_norm(w, f"{layers}.{n}.layernorm", x, eps))
    return x


def posterior(w, config, chunk, prefix=""):
    """Mean and log std of one chunk; the stages have n // 2 layers each."""
    eps, n = config["rms_norm_eps"], config["num_encoder_layers"] // 2
    layers = f"{prefix}encoder.encoder_layers"
    table = w[f"{prefix}encoder.embed_tokens.weight"]
    x = torch.cat([stage(w, layers, range(n), table[token], eps) for token in chunk])
    x = linear(w, f"{prefix}encoder.squeeze_layer", x)
    x = stage(w, layers, range(n, 2 * n), x, eps)
    x = linear(
        w, f"{prefix}encoder.hidden_to_latent", rms_norm(w, f"{prefix}encoder.norm", x, eps)
    )
    return x.chunk(2)


def logits(w, config, latent, prefix=""):
    """Logits of the K tokens of one latent."""
    eps, n = config["rms_norm_eps"], config["num_decoder_layers"] // 2
    layers = f"{prefix}decoder.decoder_layers"
    x = linear(w, f"{prefix}decoder.latent_to_hidden", latent)
    x = linear(w, f"{prefix}decoder.expand_layer", stage(w, layers, range(n), x, eps))
    rows = []
    for token in x.chunk(config["patch_size"]):
        token = stage(w, layers, range(n, 2 * n), token, eps)
        token = rms_norm(w, f"{prefix}decoder.norm", token, eps)
        rows.append(w[f"{prefix}decoder.lm_head_weight"] @ token)
    return torch.stack(rows)


def input_vector(w, chunk):
    x = torch.cat([w["transformer.embed_tokens.weight"][token] for token in chunk])
    return norm(w, "embed_proj.3", linear(w, "embed_proj.2", silu(linear(w, "embed_proj.0", x))))


def turned(x, position, config):
    """Rotary position of one head's query or key, in pairs (j, j + half)."""
    half = len(x) // 2
    y = torch.empty_like(x)
    for j in range(half):
        rate = config["rope_theta"] ** (-j / half)
        if scaling := config["rope_scaling"]:
            rate = scaled(rate, scaling)
        cos, sin = math.cos(position * rate), math.sin(position * rate)
        y[j] = cos * x[j] - sin * x[j + half]
        y[j + half] = cos * x[j + half] + sin * x[j]
    return y


def scaled(rate, scaling):
    """Llama 3.1: by how many turns a pair makes within the trained length."""
    if scaling["rope_type"] == "linear":
        return rate / scaling["factor"]
    turns = scaling["original_max_position_embeddings"] * rate / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = min(max((turns - low) / (high - low), 0.0), 1.0)
    return kept * rate + (1 - kept) * rate / scaling["factor"]


def attended(w, layer, xs, config):
    """Causal attention of all positions; neighbouring query heads share a key head."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    queries = [linear(w, f"{layer}.q_proj", x).chunk(heads) for x in xs]
    keys = [linear(w, f"{layer}.k_proj", x).chunk(kv_heads) for x in xs]
    values = [linear(w, f"{layer}.v_proj", x).chunk(kv_heads) for x in xs]
    outputs = []
    for t in range(len(xs)):
        mixed = []
        for head in range(heads):
            shared = head // (heads // kv_heads)
            query = turned(queries[t][head], t, config)
            scores = [query @ turned(keys[s][shared], s, config) for s in range(t + 1)]
            shares = softmax(torch.stack(scores) / math.sqrt(len(query)), dim=0)
            mixed.append(sum(shares[s] * values[s][shared] for s in range(t + 1)))
        outputs.append(linear(w, f"{layer}.o_proj", torch.cat(mixed)))
    return outputs


def hidden_states(w, config, vectors):
    """States of one row of input vectors."""
    eps, xs = config["rms_norm_eps"], list(vectors)
    for n in range(config["num_hidden_layers"]):
        layer = f"transformer.layers.{n}"
        normed = [rms_norm(w, f"{layer}.input_layernorm", x, eps) for x in xs]
        mixed = attended(w, f"{layer}.self_attn", normed, config)
        xs = [x + y for x, y in zip(xs, mixed, strict=True)]
        normed = [rms_norm(w, f"{layer}.post_attention_layernorm", x, eps) for x in xs]
        xs = [x + swiglu(w, f"{layer}.mlp", y) for x, y in zip(xs, normed, strict=True)]
    return torch.stack([rms_norm(w, "transformer.norm", x, eps) for x in xs])


def energy_sample(w, config, cond, noise, head="generative_head"):
    """One sample of one position."""
    e = norm(w, f"{head}.norm_noise", linear(w, f"{head}.noise_embd", noise))
    c = norm(w, f"{head}.norm_hidden", linear(w, f"{head}.hidden_embd", cond))
    for n in range(config["num_mlp_layers"]):
        block = f"{head}.mlp_blocks.{n}"
        x = torch.cat([norm(w, f"{block}.in_ln", e), c])
        x = silu(linear(w, f"{block}.linears.0", x))
        x = silu(linear(w, f"{block}.linears.2", x))
        gate, up = linear(w, f"{block}.linears.4", x).chunk(2)
        e = e + linear(w, f"{block}.down_proj", silu(gate) * up)
    e = norm(w, f"{head}.final_layer.in_ln", e)
    e = silu(linear(w, f"{head}.final_layer.linears.0", e))
    return linear(w, f"{head}.final_layer.linears.2", e)


def adaptive(w, config, x, step, cond):
    """The network of the flow and diffusion heads at a whole step, for one position."""
    net = "generative_head.net"
    numbers = [torch.tensor(float(j), dtype=torch.float32) for j in range(128)]
    rates = [torch.exp(-math.log(10000.0) * j / 128) for j in numbers]
    angles = step * torch.stack(rates).double()
    time = torch.cat([angles.cos(), angles.sin()])
    time = linear(w, f"{net}.time_embed.mlp.0", time)
    time = linear(w, f"{net}.time_embed.mlp.2", silu(time))
    signal = silu(time + linear(w, f"{net}.cond_embed", cond))
    x = linear(w, f"{net}.input_proj", x)
    for n in range(config["num_mlp_layers"]):
        block = f"{net}.res_blocks.{n}"
        shift, scale, gate = linear(w, f"{block}.adaLN_modulation.1", signal).chunk(3)
        y = norm(w, f"{block}.in_ln", x) * (1 + scale) + shift
        x = x + gate * linear(w, f"{block}.mlp.2", silu(linear(w, f"{block}.mlp.0", y)))
    shift, scale = linear(w, f"{net}.final_layer.adaLN_modulation.1", signal).chunk(2)
    x = layer_norm(x, x.shape, eps=1e-6) * (1 + scale) + shift
    return linear(w, f"{net}.final_layer.linear", x)
