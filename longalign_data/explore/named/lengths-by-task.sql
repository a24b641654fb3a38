-- How long the samples are, in tokens, by task.
select task as task, count(*) as samples, sum(num_tokens) as tokens, round(100 * sum(num_tokens) / sum(sum(num_tokens)) over (), 1) as percent,
       quantile_disc(num_tokens, 0.1) as p10, quantile_disc(num_tokens, 0.5) as p50, quantile_disc(num_tokens, 0.9) as p90,
       max(num_tokens) as longest
from samples group by task order by samples desc, task
