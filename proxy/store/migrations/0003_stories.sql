-- What happened to one request, one deferral, one restart: decisions are found by each of them.

CREATE INDEX decisions_request ON decisions (request_id, id) WHERE request_id IS NOT NULL;
CREATE INDEX decisions_receipt ON decisions (receipt, id) WHERE receipt IS NOT NULL;
CREATE INDEX decisions_generation ON decisions (workspace_id, generation, id);
