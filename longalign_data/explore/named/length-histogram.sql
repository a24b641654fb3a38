-- How many samples there are in each 4,000 tokens of length.
select num_tokens // 4000 * 4000 as from_tokens, count(*) as samples, bar(count(*), 0, max(count(*)) over (), 40) as histogram
from samples group by from_tokens order by from_tokens
