"""The facts of a data set's page, made as the command line makes them."""

import dataclasses

from retinanet.analysis.coverage import cover
from retinanet.analysis.survey import survey
from retinanet.config.model_settings import ModelSettings, PreprocessingSettings
from retinanet.config.settings import MatchingSettings
from retinanet.data import open_data
from retinanet.report.data_page import DataFacts

MODEL = ModelSettings(preprocessing=PreprocessingSettings(size=160, longer=240))


def facts(root, names=("train", "val"), **changes):
    splits = {name: open_data(root, name) for name in names}
    first = next(iter(splits.values()))
    smaller = dataclasses.replace(MODEL.anchors, first_level=2)
    models = {"the paper's anchors": MODEL, "fitted anchors": dataclasses.replace(MODEL, anchors=smaller)}
    made = DataFacts(
        root=root,
        kind=first.kind,
        surveys={name: survey(data, MODEL.preprocessing) for name, data in splits.items()},
        findings=[],
        coverages={name: cover(first, model, MatchingSettings()) for name, model in models.items()},
        choices=[{"setting": "model.anchors.first_level", "value": 2, "reason": "the boxes are small"}],
        splits=splits,
    )
    return dataclasses.replace(made, **changes)
