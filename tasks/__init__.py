"""What users come for: judgments over many texts, in memory or in files larger than memory.

The letters of shapes here, as suffixes (`probabilities_NC`); those of the model are in `model/architecture.py`:

| letter | meaning                      | letter | meaning                                          |
|--------|------------------------------|--------|--------------------------------------------------|
| N      | texts, or rows               | C      | labels                                           |
| M      | rows that are held out       | R      | resamples of a bootstrap                         |
| D      | width of a text's vector     | E      | width of the space where texts meet labels       |
| S      | buckets of words             | F      | words of all texts, one after the other          |
| G      | groups                       | P      | prefixes                                         |
| B      | texts of a batch             | W      | wordings of a label                              |

Some functions have letters of their own, such as M for the decisions of a row, and T for templates.
"""
