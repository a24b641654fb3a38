-- Which documents were met more than once; the first was kept.
select documents.source, documents.source_ref as kept, rejects.reason, count(*) as times_rejected, min(rejects.detail) as example
from rejects join documents on documents.doc_id = rejects.id
where rejects.stage = 'ingest' and rejects.reason like '%duplicate%'
group by all order by times_rejected desc, kept
