-- How long the answers are, in tokens, by task.
select task, count(*) as answers, quantile_disc(num_answer_tokens, 0.1) as p10, quantile_disc(num_answer_tokens, 0.5) as p50,
       quantile_disc(num_answer_tokens, 0.9) as p90, max(num_answer_tokens) as longest,
       round(100 * sum(num_answer_tokens) / sum(num_tokens), 2) as percent_of_tokens
from samples group by task order by task
