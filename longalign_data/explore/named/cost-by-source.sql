-- What the samples of each source cost, and how much of their prompts came from the provider's cache.
select source, count(*) as samples, round(sum(cost_usd), 4) as usd, round(avg(cost_usd), 6) as usd_per_sample,
       sum(usage.input_tokens + usage.cache_write_tokens + usage.cache_read_tokens) as prompt_tokens,
       round(100 * sum(usage.cache_read_tokens)
             / nullif(sum(usage.input_tokens + usage.cache_write_tokens + usage.cache_read_tokens), 0), 1) as percent_from_cache,
       sum(usage.output_tokens) as output_tokens
from samples group by source order by usd desc nulls last, source
