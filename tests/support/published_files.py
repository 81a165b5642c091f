"""Random checkpoints in the published format, and the ways to write them."""

import json

import torch
from safetensors.torch import save_file

AUTOENCODER = {
    "ae_dropout": 0.1,
    "hidden_act": "silu",
    "hidden_size": 6,
    "intermediate_size": 10,
    "kl_clamp": 0.3,
    "kl_weight": 0.002,
    "latent_size": 5,
    "mlp_bias": False,
    "num_decoder_layers": 4,
    "num_encoder_layers": 4,
    "patch_size": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": 13,
}

CALM = {
    "ae_path": "/home/somebody/autoencoder",
    "attention_bias": False,
    "beta": 0.9,
    "hidden_act": "silu",
    "hidden_size": 16,
    "intermediate_size": 20,
    "latent_size": 5,
    "mlp_bias": False,
    "noise_size": 3,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "num_mlp_layers": 3,
    "num_samples": 4,
    "patch_size": 2,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "vocab_size": 13,
}


def autoencoder_shapes(config):
    width, ff, latent = (config[k] for k in ("hidden_size", "intermediate_size", "latent_size"))
    wide = config["patch_size"] * width
    shapes = {
        "encoder.embed_tokens.weight": (config["vocab_size"], width),
        "encoder.squeeze_layer.weight": (width, wide),
        "encoder.squeeze_layer.bias": (width,),
        "encoder.hidden_to_latent.weight": (2 * latent, width),
        "encoder.hidden_to_latent.bias": (2 * latent,),
        "encoder.norm.weight": (width,),
        "decoder.latent_to_hidden.weight": (width, latent),
        "decoder.latent_to_hidden.bias": (width,),
        "decoder.expand_layer.weight": (wide, width),
        "decoder.expand_layer.bias": (wide,),
        "decoder.norm.weight": (width,),
    }
    for side in ("encoder", "decoder"):
        for n in range(config[f"num_{side}_layers"]):
            layer = f"{side}.{side}_layers.{n}"
            shapes[f"{layer}.layernorm.weight"] = (width,)
            shapes |= swiglu_shapes(f"{layer}.mlp", width, ff)
    return shapes


def swiglu_shapes(name, width, ff):
    return {
        f"{name}.gate_proj.weight": (ff, width),
        f"{name}.up_proj.weight": (ff, width),
        f"{name}.down_proj.weight": (width, ff),
    }


def backbone_shapes(config):
    width, ff = config["hidden_size"], config["intermediate_size"]
    kv = width // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {
        "transformer.embed_tokens.weight": (config["vocab_size"], width),
        "transformer.norm.weight": (width,),
        **linear_shapes("embed_proj.0", config["patch_size"] * width, 2 * width),
        **linear_shapes("embed_proj.2", 2 * width, width),
        **norm_shapes("embed_proj.3", width),
    }
    for n in range(config["num_hidden_layers"]):
        layer = f"transformer.layers.{n}"
        shapes[f"{layer}.input_layernorm.weight"] = (width,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (width,)
        for name, out in {"q": width, "k": kv, "v": kv, "o": width}.items():
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (out, width)
        shapes |= swiglu_shapes(f"{layer}.mlp", width, ff)
    return shapes


def linear_shapes(name, fan_in, fan_out):
    return {f"{name}.weight": (fan_out, fan_in), f"{name}.bias": (fan_out,)}


def norm_shapes(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def energy_shapes(config):
    width, head = config["hidden_size"], "generative_head"
    shapes = {
        **linear_shapes(f"{head}.noise_embd", config["noise_size"], width),
        **linear_shapes(f"{head}.hidden_embd", width, width),
        **norm_shapes(f"{head}.norm_noise", width),
        **norm_shapes(f"{head}.norm_hidden", width),
        **norm_shapes(f"{head}.final_layer.in_ln", width),
        **linear_shapes(f"{head}.final_layer.linears.0", width, width),
        **linear_shapes(f"{head}.final_layer.linears.2", width, config["latent_size"]),
    }
    for n in range(config["num_mlp_layers"]):
        block = f"{head}.mlp_blocks.{n}"
        shapes |= norm_shapes(f"{block}.in_ln", width)
        shapes |= linear_shapes(f"{block}.linears.0", 2 * width, width)
        shapes |= linear_shapes(f"{block}.linears.2", width, width)
        shapes |= linear_shapes(f"{block}.linears.4", width, 2 * width)
        shapes |= linear_shapes(f"{block}.down_proj", width, width)
    return shapes


def adaptive_shapes(config, outputs):
    width, latent, net = config["hidden_size"], config["latent_size"], "generative_head.net"
    shapes = {
        **linear_shapes(f"{net}.time_embed.mlp.0", 256, width),
        **linear_shapes(f"{net}.time_embed.mlp.2", width, width),
        **linear_shapes(f"{net}.cond_embed", width, width),
        **linear_shapes(f"{net}.input_proj", latent, width),
        **linear_shapes(f"{net}.final_layer.linear", width, outputs * latent),
        **linear_shapes(f"{net}.final_layer.adaLN_modulation.1", width, 2 * width),
    }
    for n in range(config["num_mlp_layers"]):
        block = f"{net}.res_blocks.{n}"
        shapes |= norm_shapes(f"{block}.in_ln", width)
        shapes |= linear_shapes(f"{block}.mlp.0", width, width)
        shapes |= linear_shapes(f"{block}.mlp.2", width, width)
        shapes |= linear_shapes(f"{block}.adaLN_modulation.1", width, 3 * width)
    return shapes


def drawn(shapes, dtype=torch.float64):
    """Weights that keep the scale of what they are applied to; no two alike, none neutral."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        if len(shape) > 1:
            x = x / shape[-1] ** 0.5
        else:
            x = x / 4 + (0 if name.endswith("bias") else 1)
        # A posterior narrow or wide enough is bounded by calmkit, unlike the published one.
        tensors[name] = (x / 2 if "hidden_to_latent" in name else x).to(dtype)
    return tensors


def autoencoder_checkpoint(dtype=torch.float64, **changes):
    config = AUTOENCODER | changes
    tensors = drawn(autoencoder_shapes(config), dtype)
    tensors["decoder.lm_head_weight"] = tensors["encoder.embed_tokens.weight"].clone()
    return config, tensors


def calm_checkpoint(kind, *, autoencoder=None, dtype=torch.float64, **changes):
    """Config and tensors of a language model; `autoencoder` changes the one inside."""
    config = CALM | changes
    shared = {key: config[key] for key in ("patch_size", "vocab_size", "latent_size")}
    _, inside = autoencoder_checkpoint(dtype, **shared, **(autoencoder or {}))
    shapes = backbone_shapes(config)
    if kind == "energy":
        shapes |= energy_shapes(config)
    else:
        shapes |= adaptive_shapes(config, {"flow": 1, "diffusion": 2}[kind])
    tensors = drawn(shapes, dtype)
    tensors |= {f"ae_model.{name}": tensor for name, tensor in inside.items()}
    if kind == "energy":
        tensors |= {
            name.replace("generative_head", "mlp_generator"): tensor.clone()
            for name, tensor in tensors.items()
            if name.startswith("generative_head.")
        }
    return config, tensors


def write(folder, config, tensors, form="bin"):
    """Write a checkpoint; `form` is bin or safetensors, with " shards" for three files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    kind, _, sharded = form.partition(" ")
    stem, end = {"bin": ("pytorch_model", "bin"), "safetensors": ("model", "safetensors")}[kind]
    save = torch.save if kind == "bin" else save_file
    if not sharded:
        save(tensors, folder / f"{stem}.{end}")
        return folder
    places = {name: f"{stem}-{i % 3 + 1:05d}-of-00003.{end}" for i, name in enumerate(tensors)}
    for place in set(places.values()):
        part = {name: tensors[name] for name in tensors if places[name] == place}
        save(part, folder / place)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps(index))
    return folder
