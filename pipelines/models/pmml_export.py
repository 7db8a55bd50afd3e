"""From a fitted Spark pipeline to a PMML file (JPMML-SparkML), and what Spark needs for that."""

from __future__ import annotations

# The file that is parsed is the one that was written a moment before.
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql.types import StructType

_NAMESPACE = "http://www.dmg.org/PMML-4_4"


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
    _replace_missing_categories(path)


def _replace_missing_categories(path: Path) -> None:
    """Let a missing category count as an unknown one, as Spark's indexers with "keep" have it.

    JPMML-SparkML exports the rule for unseen values only, and with a replacement that is not
    among the valid values of its own field, which strict scorers then refuse.
    """
    ET.register_namespace("", _NAMESPACE)
    tree = ET.parse(path)  # noqa: S314
    name = {"pmml": _NAMESPACE}
    fields = {field.get("name"): field for field in tree.iterfind(".//pmml:DataField", name)}
    for usage in tree.iterfind(".//pmml:MiningField[@invalidValueReplacement]", name):
        unknown = usage.attrib["invalidValueReplacement"]
        usage.set("missingValueReplacement", unknown)
        usage.set("missingValueTreatment", "asValue")
        ET.SubElement(fields[usage.attrib["name"]], f"{{{_NAMESPACE}}}Value", value=unknown)
    tree.write(path, encoding="UTF-8", xml_declaration=True)
