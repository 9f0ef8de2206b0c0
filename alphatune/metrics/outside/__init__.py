"""Programs and packages of others that metrics ask: Java's METEOR and tokeniser, Unidecode, nltk's words.

Knows how to start them, how long to wait, and how to say that one is not there.
"""
