"""Label the example reviews from Python and show the least certain ones.

python examples/classify_reviews.py
"""

from pathlib import Path

import pandas as pd

import nautile

reviews = pd.read_csv(Path(__file__).with_name("reviews.csv"), index_col="id")
judged = reviews.join(nautile.classify(reviews, "review"))

print(judged["label"].value_counts().to_string(), "\n")
print(judged.nsmallest(5, "confidence")[["title", "label", "confidence"]].to_string())
