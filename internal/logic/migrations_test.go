package logic

import (
	"testing"

	"im-services/internal/logic/migrations"
	"im-services/internal/testkit"
)

func TestMigrations_BearBeingRepeated(t *testing.T) {
	testkit.RepeatMigrations(t, migrations.FS, ".", migrations.Table)
}
