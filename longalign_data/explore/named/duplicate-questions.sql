-- Which questions were asked more than once, and of how many documents.
select questions[question_index + 1] as question, count(*) as times, count(distinct doc_ids) as documents, min(task) as task
from samples where question_index >= 0 group by question having times > 1 order by times desc, question
