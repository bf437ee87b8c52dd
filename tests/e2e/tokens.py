"""How many tokens a record's text has in each role's own vocabulary."""

from rsd_cli.engine.llama import Model
from rsd_cli.registry.loading import load_registry
from rsd_cli.registry.store import Store


def tokens_of_text(record, role):
    if role not in record["models"]:
        return 0
    registry = load_registry()
    model = Model(Store(offline=True).fetch(registry.model(record["models"][role]["name"])))
    count = len(model.tokenize(record["answer"]))
    model.close()
    return count
