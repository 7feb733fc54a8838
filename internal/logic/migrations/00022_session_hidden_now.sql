-- +goose Up
UPDATE sessions s JOIN conversations c ON c.id = s.target_id SET s.hidden_seq = c.last_seq WHERE s.kind = 2 AND s.hidden = 1;
