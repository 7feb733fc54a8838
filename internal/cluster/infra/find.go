package infra

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// Say tells a person what takes long; nil tells nobody.
type Say func(format string, args ...any)

func (s Say) say(format string, args ...any) {
	if s != nil {
		s(format, args...)
	}
}

// FindMySQL returns a database server of this machine: an installed one, else
// one unpacked from the distribution's packages without installing anything.
func FindMySQL(ctx context.Context, say Say) (Program, error) {
	return find(ctx, say, "MariaDB or MySQL", installedMySQL, debianRoot.mariadb)
}

// FindRedis returns a Redis server of this machine in the same way.
func FindRedis(ctx context.Context, say Say) (Program, error) {
	return find(ctx, say, "Redis or Valkey", installedRedis, debianRoot.redis)
}

func find(ctx context.Context, say Say, what string, installed func(context.Context) (Program, error), pick func(debianRoot) (Program, error)) (Program, error) {
	p, err := installed(ctx)
	if err == nil || ctx.Err() != nil {
		return p, err
	}
	if !errors.Is(err, errNotInstalled) {
		say.say("the server that is installed cannot be used, trying the distribution's packages: %v", err)
	}
	p, fetchErr := fromDebian(ctx, say, pick)
	if fetchErr == nil || ctx.Err() != nil {
		return p, fetchErr
	}
	return Program{}, fmt.Errorf("no %s server: %w; %w\n%s", what, err, fetchErr, wayOut(ctx))
}

// wayOut is one screen of what to do when a server cannot be had.
func wayOut(ctx context.Context) string {
	if dockerReady(ctx) {
		return "Way out: a Docker engine that has the images is here: make up-docker"
	}
	return `Way out, one of:
  Debian, Ubuntu   apt-get install mariadb-server redis-server
  Fedora, RHEL     dnf install mariadb-server valkey
  Arch             pacman -S mariadb valkey
  Alpine           apk add mariadb mariadb-server-utils redis
  macOS            brew install mariadb redis
  servers you run  IM_MYSQL_DSN='user:password@tcp(host:3306)/' IM_REDIS_ADDR=host:6379
  Docker           make up-docker
The servers need not be running: private ones are started, your own stay untouched.`
}

// dockerReady reports whether a Docker engine answers and has the images. An
// engine alone decides nothing: one that cannot pull would fail minutes later.
func dockerReady(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "docker", "image", "inspect", "mysql:8.4", "redis:7").Run() == nil
}
