"""Tasks of the Abstraction and Reasoning Corpus, in the forms in which they are published."""
