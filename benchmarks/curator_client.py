"""Bespoke curator as a client of the same server, for `throttle.py --curator PYTHON`; runs in an environment of its own.

PYTHON curator_client.py URL NUM_REQUESTS
"""

import sys

from bespokelabs import curator
from datasets import Dataset


class Ask(curator.LLM):
    def prompt(self, row: dict) -> str:
        return row["prompt"]

    def parse(self, row: dict, response: str) -> dict:
        return {"prompt": row["prompt"], "response": response}


if __name__ == "__main__":
    url, num_requests = sys.argv[1], int(sys.argv[2])
    document = "The pumps were inspected. Nobody found anything. " * 4
    rows = Dataset.from_list([{"prompt": f"{document}\n\nTell me something. {n}"} for n in range(num_requests)])
    llm = Ask(
        model_name="gpt-4",
        backend="openai",
        backend_params={"base_url": f"{url}/v1", "api_key": "fake", "require_all_responses": False},
    )
    llm(rows)
