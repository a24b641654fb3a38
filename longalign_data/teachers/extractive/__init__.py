"""An offline teacher whose answers are true by construction: `teacher` asks and answers, `kinds` are its questions."""

from longalign_data.teachers.extractive.teacher import TERMS, ExtractiveTeacher, read

__all__ = ["TERMS", "ExtractiveTeacher", "read"]
