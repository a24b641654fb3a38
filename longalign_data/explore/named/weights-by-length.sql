-- How much sequences count in training, 1 being alike for all: with the loss weights, and in the same packs without them.
with settings as (
    select max(value) filter (key = 'pack.alpha')::double as alpha, max(value) filter (key = 'pack.unit') as unit from about
), members as (
    select pack_id, unnest(sequence_ids) as sequence_id from packs
), sizes as (
    select pack_id, step, normalizer, packs.num_targets as pack_targets, count(*) over (partition by step) as step_packs
    from plan join packs using (pack_id)
), pulls as (
    select sequence_id, any_value(num_tokens) as num_tokens, any_value(num_targets) as num_targets,
           sum(if(unit = 'turn', null, coalesce(value::double, 1) * pow(num_targets, 1 - alpha) / normalizer)) as weighted,
           sum(num_targets / (pack_targets * step_packs)) as unweighted
    from members join sizes using (pack_id) join sequences using (sequence_id) cross join settings
    left join about on key = 'pack.source_weights.' || sequences.source
    group by sequence_id
), shares as (
    select *, weighted / avg(weighted) over () as weighted_share, unweighted / avg(unweighted) over () as unweighted_share from pulls
)
select (pow(2, floor(log2(num_tokens))))::bigint as from_tokens, count(*) as sequences, round(avg(num_targets), 1) as mean_targets,
       round(avg(weighted_share), 3) as with_weights, round(avg(unweighted_share), 3) as without_weights
from shares group by from_tokens order by from_tokens
