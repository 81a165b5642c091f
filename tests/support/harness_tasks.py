"""Tasks for lm-evaluation-harness whose data are files, so that no network is needed."""

import json

import yaml

QUESTIONS = [
    {"question": "The value of x is ", "choices": ["one", "two", "seven of them"], "answer": 0},
    {"question": "A list holds", "choices": [" objects", " x"], "answer": 1},
    {"question": "Names", "choices": [" are bound.", " are not", " or"], "answer": 2},
    {"question": "", "choices": ["The value", "a"], "answer": 0},
]


def write_tasks(folder):
    """Write `local_choices`, `local_text`, `local_word` and `local_rolling`; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "questions.jsonl"
    data.write_text("".join(f"{json.dumps(line)}\n" for line in QUESTIONS), encoding="utf-8")
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(data)},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "target_delimiter": "",
    }
    tasks = {
        "local_choices": {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc"}],
        },
        "local_text": {
            "output_type": "generate_until",
            "doc_to_target": "{{choices[answer]}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
            "metric_list": [{"metric": "exact_match"}],
        },
        "local_word": {
            "output_type": "loglikelihood",
            "doc_to_target": "{{choices[answer]}}",
            "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
        },
        "local_rolling": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{question}}{{choices[answer]}}",
            "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
        },
    }
    for name, task in tasks.items():
        text = yaml.safe_dump({"task": name, **shared, **task}, sort_keys=False)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder
