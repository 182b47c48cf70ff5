-- What the gate said as a model went into production (server::registry::Judgement as JSON); absent for other stages, and for
-- releases before there was a gate.
ALTER TABLE model_stages ADD COLUMN judgement TEXT;
