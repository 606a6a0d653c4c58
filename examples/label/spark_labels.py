"""Labels for the images of a Spark table: encoded images in a column, classes in new ones.

    spark-submit examples/label/spark_labels.py BUNDLE IMAGES LABELS

IMAGES is a folder of files, at any depth, or an address of one that Spark opens; LABELS becomes a Parquet table.  Every
executor needs samdeploy, a runtime, pandas and pyarrow, and the bundle at the same path.  The engine takes all
processors that it sees: give a task as many, by --conf spark.task.cpus.

Resuming, equal bytes and counts that add up are `samdeploy label`'s; of Spark's own, a lost task is done again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession

if TYPE_CHECKING:
    import pandas

SCHEMA = "path string, label string, probability float, rejected boolean, error string"


def labels(images: DataFrame, bundle: str, backend: str = "auto") -> DataFrame:
    """A table of `SCHEMA`.

    Args:
        images: has the columns `path`, text, and `content`, encoded images.
        bundle: its folder, on every executor.
    """
    return images.select("path", "content").mapInPandas(_labelling(bundle, backend), SCHEMA)


def _labelling(bundle: str, backend: str) -> Callable[[Iterator[pandas.DataFrame]], Iterator[pandas.DataFrame]]:
    def work(frames: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        import pandas

        from samdeploy import Classifier
        from samdeploy.errors import ImageError

        with Classifier.open(bundle, backend) as classifier:  # once for each partition, with its golden images
            for frame in frames:
                rows = []
                answers = classifier.stream(map(bytes, frame["content"]), on_error="yield")
                for path, answer in zip(frame["path"], answers, strict=True):
                    if isinstance(answer, ImageError):
                        rows.append((path, None, None, None, str(answer)))
                    else:
                        rows.append((path, answer.label, answer.probability, answer.rejected, None))
                yield pandas.DataFrame(rows, columns=["path", "label", "probability", "rejected", "error"])

    return work


def main() -> None:
    bundle, folder, out = sys.argv[1:]
    spark = SparkSession.builder.appName("samdeploy label").getOrCreate()
    # A frame of images is in memory at once; Spark's own 10,000 rows would be gigabytes.
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 256)
    images = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(folder)
    labels(images, bundle).write.mode("error").parquet(out)
    spark.stop()


if __name__ == "__main__":
    main()
