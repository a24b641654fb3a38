"""Kinds of task: the instruction that asks a teacher for five questions, and the reading of its reply.

A built-in task is one file in `prompts/`, a task of one's own is a file that the recipe names.
"""
