"""From a fitted Spark pipeline to a PMML file (JPMML-SparkML), and what Spark needs for that."""

from __future__ import annotations

import re

# The file that is parsed is the one that was written a moment before.
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql.types import StructType

    _Tree = ET.ElementTree[ET.Element[str]]

_NAMESPACE = "http://www.dmg.org/PMML-4_4"
_PREFIX = {"pmml": _NAMESPACE}
_SET = f"{{{_NAMESPACE}}}SimpleSetPredicate"
#: A value of an array, in quotation marks or without.
_ARRAY_VALUE = re.compile(r'"((?:\\"|[^"])*)"|(\S+)')


def pmml_jars() -> list[str]:
    """Return the jars that a Spark session must be started with to export PMML."""
    import pyspark2pmml

    return sorted(pyspark2pmml.spark_jars().split(","))


def pmml_spark_conf() -> dict[str, str]:
    """Return the Spark configuration of a session that can export PMML."""
    return {"spark.jars": ",".join(pmml_jars())}


def export_pmml(model: PipelineModel, schema: StructType, path: Path) -> None:
    """Write `model`, which takes rows of `schema`, to `path`.

    The session must have been started with :func:`pmml_spark_conf`.
    """
    from pyspark2pmml import PMMLBuilder

    PMMLBuilder(schema, model).buildFile(str(path))
    ET.register_namespace("", _NAMESPACE)
    tree = ET.parse(path)  # noqa: S314
    _replace_missing_categories(tree)
    _raise_probabilities(tree)
    _spell_out_quotation_marks(tree)
    tree.write(path, encoding="UTF-8", xml_declaration=True)


def _replace_missing_categories(tree: _Tree) -> None:
    """Let a missing category count as an unknown one, as Spark's indexers with "keep" have it.

    JPMML-SparkML exports the rule for unseen values only, and with a replacement that is not
    among the valid values of its own field, which strict scorers then refuse.
    """
    fields = {field.get("name"): field for field in tree.iterfind(".//pmml:DataField", _PREFIX)}
    for usage in tree.iterfind(".//pmml:MiningField[@invalidValueReplacement]", _PREFIX):
        unknown = usage.attrib["invalidValueReplacement"]
        usage.set("missingValueReplacement", unknown)
        usage.set("missingValueTreatment", "asValue")
        ET.SubElement(fields[usage.attrib["name"]], f"{{{_NAMESPACE}}}Value", value=unknown)


def _raise_probabilities(tree: _Tree) -> None:
    """Give a chain of models the probabilities that its last model has among its outputs.

    JPMML-SparkML exports boosted trees as a chain: the sum of the trees, then a logistic function
    of it. Scorers such as PMML4S give the outputs of the outermost model alone. There the feature
    "probability" would not do: JPMML's evaluator finds no distribution in the result of a chain.
    """
    for chain in tree.iterfind("./pmml:MiningModel", _PREFIX):
        outputs = chain.find("./pmml:Output", _PREFIX)
        last = chain.find("./pmml:Segmentation/pmml:Segment[last()]//pmml:Output", _PREFIX)
        if outputs is None or last is None:
            continue
        for field in last.iterfind("./pmml:OutputField[@feature='probability']", _PREFIX):
            name = field.attrib["name"]
            inner = f"chained_{name}"
            field.set("name", inner)
            field.set("isFinalResult", "false")
            raised = ET.SubElement(
                outputs,
                f"{{{_NAMESPACE}}}OutputField",
                name=name,
                optype="continuous",
                dataType="double",
                feature="transformedValue",
            )
            ET.SubElement(raised, f"{{{_NAMESPACE}}}FieldRef", field=inner)


def _spell_out_quotation_marks(tree: _Tree) -> None:
    """Compare one by one with the values of a set that has quotation marks in its values.

    PMML says that they are escaped inside an array, as JPMML-SparkML does; PMML4S does not undo it.
    """
    for parent in list(tree.iter()):
        for place, chosen in enumerate(parent):
            array = chosen.find("./pmml:Array", _PREFIX)
            if chosen.tag != _SET or array is None or '\\"' not in (array.text or ""):
                continue
            is_in = chosen.attrib["booleanOperator"] == "isIn"
            operator = "or" if is_in else "and"
            parent[place] = ET.Element(
                f"{{{_NAMESPACE}}}CompoundPredicate", booleanOperator=operator
            )
            for quoted, plain in _ARRAY_VALUE.findall(array.text or ""):
                ET.SubElement(
                    parent[place],
                    f"{{{_NAMESPACE}}}SimplePredicate",
                    field=chosen.attrib["field"],
                    operator="equal" if is_in else "notEqual",
                    value=plain or quoted.replace('\\"', '"'),
                )
