-- +goose Up
-- The turn of the gateway that what was refused came in: of a connection only earlier
-- copies are late ones.
ALTER TABLE refusals ADD COLUMN /*M! IF NOT EXISTS */ turn BIGINT NOT NULL DEFAULT 0;
