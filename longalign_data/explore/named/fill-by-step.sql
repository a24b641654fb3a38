-- How full the packs of each step are, how many sequences it holds, and how unlike its packs are in work.
select step, count(*) as packs, any_value(plan.num_sequences) as sequences, round(100 * sum(num_tokens) / sum(capacity), 2) as percent_full,
       round(max(work) / min(work), 2) as work_ratio, round(100 * (1 - avg(work) / max(work)), 1) as percent_idle
from plan join packs using (pack_id) group by step order by step
