-- What pandoc's own markdown lacks of the dialect that the notebooks are written in:
-- callouts, links between notebooks, numbered figures and equations, headings that never share an id.

local numbers, counts, taken = {}, { fig = 0, eq = 0, tbl = 0 }, {}
local words = { fig = "Figure", eq = "Equation", tbl = "Table" }

local function kind_of(id) return id:match("^(%a+)%-") end

local function number(id)
  local kind = kind_of(id)
  if kind and counts[kind] and not numbers[id] then
    counts[kind] = counts[kind] + 1
    numbers[id] = counts[kind]
  end
end

-- "$$ ... $$ {#eq-name}": the label is plain text to pandoc; make it the id of a division around the formula.
local function labelled_equation(block)
  local parts, id = pandoc.List(), nil
  for _, inline in ipairs(block.content) do
    local label = inline.t == "Str" and inline.text:match("^{#(eq%-[%w_-]+)}$")
    if label then id = label else parts:insert(inline) end
  end
  if not id then return nil end
  number(id)
  parts:insert(pandoc.Span({ pandoc.Str("(" .. numbers[id] .. ")") }, { class = "equation-number" }))
  return pandoc.Div({ pandoc.Para(parts) }, pandoc.Attr(id, { "equation" }))
end

-- Every figure with a caption has a number; those with a label can be referred to.
local function figure(block)
  local first = block.caption.long and block.caption.long[1]
  if not (first and first.content) then return nil end
  if kind_of(block.identifier) == "fig" then number(block.identifier) else counts.fig = counts.fig + 1 end
  first.content:insert(1, pandoc.Span({ pandoc.Str("Figure " .. (numbers[block.identifier] or counts.fig) .. ".") }, { class = "label" }))
  first.content:insert(2, pandoc.Space())
  return block
end

local function callout(block)
  local kind
  for _, class in ipairs(block.classes) do kind = kind or class:match("^callout%-(%a+)$") end
  if not kind then return nil end
  local title, body = kind:sub(1, 1):upper() .. kind:sub(2), pandoc.List(block.content)
  local inlines = { pandoc.Str(title) }
  if block.attributes.title then inlines = { pandoc.Str(block.attributes.title) } end
  if body[1] and body[1].t == "Header" then inlines = body:remove(1).content end
  local head = pandoc.Div({ pandoc.Plain(inlines) }, { class = "callout-title" })
  local rest = pandoc.Div(body, { class = "callout-body" })
  if block.attributes.collapse == "true" then
    local open, close = pandoc.RawBlock("html", "<details>"), pandoc.RawBlock("html", "</details>")
    local mark, unmark = pandoc.RawBlock("html", "<summary>"), pandoc.RawBlock("html", "</summary>")
    return pandoc.Div({ open, mark, head, unmark, rest, close }, pandoc.Attr(block.identifier, { "callout", "callout-" .. kind }))
  end
  return pandoc.Div({ head, rest }, pandoc.Attr(block.identifier, { "callout", "callout-" .. kind }))
end

-- 01_separation.ipynb#x -> separation.html#x, as nbdev names its pages.
local function link(element)
  local target = element.target
  if target:match("^%a[%w+.-]*:") or target:match("^#") then return nil end
  local path, fragment = target:match("^([^#]*)(#?.*)$")
  local folder, name = path:match("^(.-)([^/]*)$")
  local stem = name:match("^(.*)%.ipynb$") or name:match("^(.*)%.qmd$")
  if not stem then return nil end
  element.target = folder .. stem:gsub("^%d+[%w]*_", ""):lower() .. ".html" .. fragment
  return element
end

-- `name` -> a link to its entry; a method's name leads to its class.
local entries, root = {}, ""

local function read_meta(meta)
  root = pandoc.utils.stringify(meta.root or "")
  local file = io.open(pandoc.utils.stringify(meta.names or ""))
  if file then entries = pandoc.json.decode(file:read("a"), false) end
end

local function entry(code)
  local name = code.text:gsub("%(%)$", "")
  local target = entries[name] or entries[name:match("^(.*)%.[^.]*$") or ""]
  if target then return pandoc.Link({ code }, root .. target), false end
end

local function leave(element) return element, false end

local function reference(element)
  if #element.citations ~= 1 then return nil end
  local id = element.citations[1].id
  local kind = kind_of(id)
  if not (kind and words[kind] and numbers[id]) then return nil end
  return pandoc.Link({ pandoc.Str(words[kind] .. "\u{a0}" .. numbers[id]) }, "#" .. id, "", { class = "reference" })
end

-- Columns as wide as what stands in them, and a frame that scrolls when the page is narrow.
local function table_(element)
  for _, spec in ipairs(element.colspecs) do spec[2] = nil end
  return pandoc.Div({ element }, { class = "table-frame" })
end

local function api(element) return element.classes:includes("api") end

local function free(id)
  local name, n = id, 1
  while taken[name] do n = n + 1; name = id .. "-" .. n end
  taken[name] = true
  return name
end

-- Entries choose first, since links lead to them (the class Plan and the function plan still have to share).
local function fix_ids(doc)
  for _, entries in ipairs({ true, false }) do
    doc = doc:walk({
      Header = function(h)
        if api(h) ~= entries or h.identifier == "" then return nil end
        h.identifier = free(h.identifier)
        return h
      end,
    })
  end
  return doc
end

return {
  { Meta = read_meta },
  { Pandoc = fix_ids },
  { traverse = "topdown", Link = leave, Header = leave, Code = entry },
  { Para = labelled_equation, Figure = figure },
  { Div = callout, Link = link, Cite = reference, Table = table_ },
}
