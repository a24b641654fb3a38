-- Samples and tokens of every source, language and task.
select source, lang as language, task, count(*) as samples, sum(num_tokens) as tokens, round(avg(num_tokens)) as mean_tokens
from samples group by all order by source, language, task
