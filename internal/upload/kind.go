package upload

import (
	"path"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// pixels are the pictures that a browser shows without being able to run
// anything in them. It is a list and not "image/*" because SVG is an image that
// holds scripts.
var pixels = map[string]bool{
	"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true, "image/bmp": true, "image/avif": true,
	"image/vnd.mozilla.apng": true, "image/apng": true, "image/x-icon": true, "image/heic": true, "image/heif": true,
	"image/tiff": true, "image/jp2": true, "image/jxl": true,
}

// byExtension are the types believed by name when the bytes say nothing: sound
// cut off at its start is still sound to the person who recorded it. As sniffing
// is forbidden to browsers, nothing can run under these; those of documents are
// downloads anyway.
var byExtension = map[string]string{
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
	".apng": "image/apng", ".bmp": "image/bmp",
	".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".m4a": "audio/mp4", ".aac": "audio/aac", ".flac": "audio/flac",
	".tif": "image/tiff", ".tiff": "image/tiff", ".avif": "image/avif", ".heic": "image/heic",
	".oga": "audio/ogg", ".opus": "audio/ogg", ".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".ogv": "video/ogg",
	".pdf": "application/pdf", ".zip": "application/zip", ".gz": "application/gzip", ".7z": "application/x-7z-compressed",
	".rar": "application/vnd.rar", ".json": "application/json", ".csv": "text/csv; charset=utf-8", ".doc": "application/msword",
	".xls": "application/vnd.ms-excel", ".ppt": "application/vnd.ms-powerpoint",
	".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}

// mediaType decides what a file is: by its bytes, by its name only when they do
// not tell. SVG goes by its name as soon as the bytes are text: a comment, a
// DOCTYPE or a byte order mark before its root hides it from the detector.
func mediaType(kind *mimetype.MIME, name string) string {
	switch {
	case path.Ext(name) == ".svg" && strings.HasPrefix(kind.String(), "text/"):
		return "image/svg+xml"
	case kind.Is("audio/x-wav"), kind.Is("audio/wav"), kind.Is("audio/wave"):
		return "audio/wav"
	case kind.Is("text/plain"), kind.Is("application/octet-stream"), kind.Is("application/ogg"): // the last holds sound or video
		if t, ok := byExtension[path.Ext(name)]; ok {
			return t
		}
	}
	return kind.String()
}

// inline reports whether a browser may show a file of this type in place.
func inline(mediaType string) bool {
	t, _, _ := strings.Cut(mediaType, ";")
	t = strings.TrimSpace(t)
	return pixels[t] || strings.HasPrefix(t, "audio/") || strings.HasPrefix(t, "video/")
}
